"""Whether an object stores anything. One that does not need not exist."""

from __future__ import annotations

from dosql.sqlite.database import Database

_TABLES = "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite@_%' ESCAPE '@'"


def is_empty(db: Database) -> bool:
    """No table, view or trigger of its own, and no row in any of the server's: no key, no alarm,
    no outcome that could be asked for again."""
    names = [str(name) for (name,) in db.internal_query(_TABLES)]
    if not all(name.startswith("_dosql_") for name in names):
        return False
    tables = db.internal_query(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '@_dosql@_%' ESCAPE '@'"
    )
    return not any(db.internal_query(f'SELECT 1 FROM "{name!s}" LIMIT 1') for (name,) in tables)
