"""The commit log of a node: what makes a commit durable. See ``node_log`` for its invariants."""
