"""Imported: what a database file from elsewhere may not have in its schema.

What tenants' SQL could not have made must not come in by a file either: the authorizer would look
at each use of it, but not at what SQLite does for the server's own statements, nor at what a
virtual table reads by itself.

SQLite compares the names that ``sqlite_schema`` tells with those in the text when it loads it, so
they may be believed here; its column ``type`` is not looked at.
"""

from __future__ import annotations

import re

from dosql.clock import Clock
from dosql.errors import DosqlError, ForbiddenError, RequestError
from dosql.limits import RESERVED_TABLE_PREFIX, SERVER_TABLES
from dosql.sqlite.allowed import mentions
from dosql.sqlite.database import Database
from dosql.sqlite.opening import MEMORY

_OBJECTS = "SELECT name, tbl_name, coalesce(sql, '') FROM sqlite_schema"
_PARENTS = (
    'SELECT m.name, f."table" FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f'
    " WHERE m.type = 'table'"
)
_BETWEEN = r"(?:\s|/\*.*?\*/|--[^\n]*(?:\n|\Z))+"
_KIND = re.compile(
    rf"create{_BETWEEN}(?:temp{_BETWEEN}|temporary{_BETWEEN}|unique{_BETWEEN})*"
    r"(table|index|view|trigger|virtual)",
    re.IGNORECASE | re.DOTALL,
)


def check_imported(db: Database, clock: Clock) -> None:
    """Raises ForbiddenError with a sentence about the first thing that may not be there."""
    objects = [tuple(map(str, row)) for row in db.internal_query(_OBJECTS)]
    for name, table, sql in objects:
        kind = _kind(sql)
        if kind == "virtual":
            _check_virtual(name, sql, clock)
        elif kind in ("view", "trigger") and _is_servers(name):
            raise _refused(f"the {kind} {name!r} has a name of the server's")
        elif kind == "trigger" and _is_servers(table):
            raise _refused(f"the trigger {name!r} is on a table of the server's")
        elif kind == "index" and _is_reserved(table) and not _is_reserved(name):
            raise _refused(f"the index {name!r} is on a table of the server's")
    for child, parent in db.internal_query(_PARENTS):
        if _is_servers(str(parent)) and not _is_servers(str(child)):
            raise _refused(f"the table {child!r} refers to one of the server's")


def _check_virtual(name: str, sql: str, clock: Clock) -> None:
    # The tables that it keeps its data in are called after it.
    if _is_servers(name) or _is_reserved(name + "_"):
        raise _refused(f"the virtual table {name!r} has a name of the server's")
    if RESERVED_TABLE_PREFIX in sql.lower() or mentions(sql, SERVER_TABLES):
        raise _refused(f"the table {name!r} shows one that belongs to the server")
    scratch = Database(MEMORY, clock=clock)
    try:
        scratch.prepare(sql)  # asks the authorizer what it would be asked by a tenant
    except ForbiddenError as error:
        raise _refused(f"of the table {name!r}: {error.message.rstrip('.')}") from None
    except RequestError:
        raise _refused(f"the virtual table {name!r} cannot be made here") from None
    finally:
        scratch.close()


def _kind(sql: str) -> str:
    """Empty for what has no text: an index that a constraint brought."""
    match = _KIND.match(sql)
    return match[1].lower() if match else ""


def _is_reserved(name: str) -> bool:
    return name.lower().startswith(RESERVED_TABLE_PREFIX)


def _is_servers(name: str) -> bool:
    return _is_reserved(name) or name.lower() in SERVER_TABLES


def _refused(why: str) -> DosqlError:
    return ForbiddenError(why, code="sql_forbidden")
