# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""The client. `dosql/client/_sync` is generated from `_async` by scripts/generate_sync.py."""
