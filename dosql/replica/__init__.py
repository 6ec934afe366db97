"""The cold tier: every object's states as LTX files in a bucket."""
