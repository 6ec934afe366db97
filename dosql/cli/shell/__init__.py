"""The interactive shell: SQL and dot commands against one tenant's database."""
