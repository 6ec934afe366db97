"""The client. `dosql/client/_sync` is generated from `_async` by scripts/generate_sync.py."""
