"""CapturedSchema: which tables are captured now, and what a statement changed of the schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from dosql.sqlite.change_tables import CapturedTable, captured_tables, is_captured, quoted

if TYPE_CHECKING:
    from dosql.sqlite.connection import Connection

_Schema = dict[tuple[str, str], tuple[str, str | None]]
"""Kind and name to table and SQL."""
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema"


class SchemaChange(NamedTuple):
    """What one statement did to the schema."""

    table: str
    statement: str
    filled: list[CapturedTable]
    """New tables that have rows already, which no hook told of."""


class CapturedSchema:
    """One connection's, as it is until the schema changes."""

    def __init__(self, db: Connection) -> None:
        self.tables: dict[str, CapturedTable] | None = None
        """By name; None: they must be looked at."""
        self._db = db
        self._schema: _Schema = {}
        self._version: object = None

    def load(self) -> dict[str, CapturedTable]:
        """`tables`, looked at if need be."""
        tables = self.tables
        if tables is None:
            tables = self.tables = captured_tables(self._db)
            self._schema = self._read_schema()
            self._version = self._read_version()
        return tables

    def forget(self) -> None:
        """The schema may be another one: an older one, say."""
        self.tables = None

    def has_rows(self, table: CapturedTable) -> bool:
        """Whether there is any row in it."""
        return bool(self._db.internal_query(f"SELECT 1 FROM {quoted(table.name)} LIMIT 1"))

    def change(self, statement: str) -> SchemaChange | None:
        """What the statement that just ran changed of the captured tables; None: nothing."""
        if self.tables is not None and self._read_version() == self._version:
            return None
        before, tables = self._schema, self.tables or {}
        self.tables = None
        now = self.load()
        changed = self._schema.items() ^ before.items()
        if not changed:
            return None
        filled = [each for name, each in now.items() if name not in tables and self.has_rows(each)]
        if not tables.keys() <= now.keys():
            filled = []  # one got another name
        subject = min(changed, key=_by_subject(before))
        if filled:  # CREATE TABLE ... AS SELECT, whose rows no hook tells of
            statement = self._schema["table", filled[0].name][1] or statement
        return SchemaChange(subject[1][0], statement.strip(), filled)

    def _read_version(self) -> object:
        return self._db.internal_query("PRAGMA schema_version")[0][0]

    def _read_schema(self) -> _Schema:
        return {
            (str(kind), str(name)): (str(table), None if sql is None else str(sql))
            for kind, name, table, sql in self._db.internal_query(_SCHEMA)
            if is_captured(str(table)) and is_captured(str(name))
        }


def _by_subject(
    before: _Schema,
) -> Callable[[tuple[tuple[str, str], object]], tuple[bool, bool, str]]:
    """Order of what a statement changed: tables first, and the names they had; a virtual table
    comes before its shadows."""
    return lambda each: (each[0][0] != "table", each[0] not in before, each[0][1])
