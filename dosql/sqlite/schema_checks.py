"""What is looked at after a change of the schema, because the sandbox does not see it coming."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dosql.errors import ForbiddenError, QuotaError
from dosql.limits import RESERVED_TABLE_PREFIX, SCHEMA_OBJECTS_MAX
from dosql.sqlite.sandbox import RESERVED_NAME, SERVER_REFERENCE, Sandbox
from dosql.wire.values import SqlValue

if TYPE_CHECKING:
    from dosql.sqlite.connection import Connection

_RESERVED_NAMES = (
    f"SELECT name FROM sqlite_schema WHERE lower(substr(name, 1, {len(RESERVED_TABLE_PREFIX)}))"
    f" = '{RESERVED_TABLE_PREFIX}'"
)
_MADE = (
    "SELECT name, 'virtual', sql FROM sqlite_schema WHERE type = 'table' AND rootpage = 0"
    " UNION ALL SELECT m.name, 'parent', f.\"table\""
    " FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table'"
)


def reserved_names(db: Connection) -> frozenset[SqlValue]:
    """The names with the reserved prefix, to be compared by `check_names`."""
    return frozenset(row[0] for row in db.internal_query(_RESERVED_NAMES))


def check_names(db: Connection, sandbox: Sandbox, before: frozenset[SqlValue]) -> None:
    """Look at the new name in ALTER TABLE ... RENAME TO, the parent of a foreign key, and the
    table that a full-text table shows. ``before``: the `reserved_names` before the change.

    Raises:
        ForbiddenError: one of them is the server's.
    """
    if reserved_names(db) != before:
        raise ForbiddenError(RESERVED_NAME.message, code=RESERVED_NAME.code)
    for name, kind, sql in db.internal_query(_MADE):
        if sandbox.is_servers(str(name)):
            continue
        if kind == "virtual" and sandbox.shows_servers(str(sql)):
            raise ForbiddenError(SERVER_REFERENCE.message, code=SERVER_REFERENCE.code)
        if kind == "parent" and sandbox.is_servers(str(sql)):
            raise ForbiddenError(SERVER_REFERENCE.message, code=SERVER_REFERENCE.code)


def check_schema_size(db: Connection) -> None:
    """Raises QuotaError ``schema_limit``."""
    count = db.internal_query("SELECT count(*) FROM sqlite_schema")[0][0]
    if int(str(count)) > SCHEMA_OBJECTS_MAX:
        raise QuotaError(
            f"A database has at most {SCHEMA_OBJECTS_MAX:,} tables, indexes, views and triggers.",
            code="schema_limit",
        )
