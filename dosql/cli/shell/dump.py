"""A database as SQL text that SQLite's own shell, or this one, reads back.

Not in it: rowids that no column names, the internal state of virtual tables (their rows are
inserted again), and the server's own tables. Reals are written so that a current SQLite reads
exactly the same; old ones (3.40 was seen to) miss the last bit of some extreme ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dosql.cli.execution import Database
from dosql.cli.formats import literal
from dosql.errors import LimitError
from dosql.limits import RESERVED_TABLE_PREFIX, SERVER_TABLES

Write = Callable[[str], None]

_ROWS_AT_ONCE = 500
# SQLite keeps these words in this form, however they were typed.
_CREATE = re.compile(r"^CREATE (?:TABLE|VIRTUAL TABLE|VIEW|INDEX|UNIQUE INDEX|TRIGGER) ")
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_FTS = re.compile(r"\busing\s+fts5\b", re.IGNORECASE)
_FTS_CONTENT = re.compile(r"\bcontent(?:less_delete)?\s*=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """What is needed to read a table's rows in order."""

    name: str
    sql: str
    columns: tuple[str, ...]
    """All that can be inserted: no generated and no hidden ones."""
    key: tuple[str, ...]
    """Expressions that order the rows and tell them apart."""


def dump(database: Database, write: Write) -> None:
    """Write statements that make an equal database from an empty one.

    Raises:
        DosqlError: a read failed; the text written so far has no COMMIT.
    """
    # Inside the transaction, so that tables may refer to rows that come later.
    write("BEGIN TRANSACTION;\nPRAGMA defer_foreign_keys=ON;\n")
    objects = _objects(database)
    for kind, name, sql in objects:
        if kind == "table":
            write(f"{_if_not_exists(sql)};\n")
            _dump_rows(database, name, sql, write)
    _dump_sequences(database, objects, write)
    for wanted in ("view", "index", "trigger"):
        for kind, _, sql in objects:
            if kind == wanted:
                write(f"{_if_not_exists(sql)};\n")
    write("COMMIT;\n")


def _objects(database: Database) -> list[tuple[str, str, str]]:
    """Kind, name and CREATE statement, in the order of creation."""
    shadows = database.query_rows("SELECT name FROM pragma_table_list WHERE type = 'shadow'")
    shadow_names = {name for (name,) in shadows.rows}
    schema = database.query_rows(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
    )
    return [
        (kind, name, sql)
        for kind, name, table, sql in schema.rows
        if name not in shadow_names
        and not name.startswith("sqlite_")
        and not table.lower().startswith(RESERVED_TABLE_PREFIX)
        and table.lower() not in SERVER_TABLES
    ]


def _dump_rows(database: Database, name: str, sql: str, write: Write) -> None:
    if _FTS.search(sql) and _FTS_CONTENT.search(sql):
        # The rows are another table's: only the index over them has to be made again.
        write(f"INSERT INTO {quote(name)}({quote(name)}) VALUES('rebuild');\n")
        return
    table = _table(database, name, sql)
    columns = ",".join(map(quote, table.columns))
    for row in _rows(database, table):
        write(f"INSERT INTO {quote(name)}({columns}) VALUES({','.join(map(literal, row))});\n")


def _table(database: Database, name: str, sql: str) -> Table:
    info = database.query_rows("SELECT name, hidden, pk FROM pragma_table_xinfo(?)", [name])
    columns = tuple(column for column, hidden, _ in info.rows if not hidden)
    if _FTS.search(sql):
        columns = ("rowid", *columns)  # other tables may refer to it
    without_rowid = database.query_rows(
        "SELECT wr FROM pragma_table_list WHERE name = ? AND schema = 'main'", [name]
    )
    if without_rowid.rows and without_rowid.rows[0][0]:
        ordered = sorted((pk, column) for column, _, pk in info.rows if pk)
        return Table(name, sql, columns, tuple(quote(column) for _, column in ordered))
    taken = {column.lower() for column, _, _ in info.rows}
    free = [rowid for rowid in _ROWID_NAMES if rowid not in taken]
    alias = free[0] if free else quote(next(column for column, _, pk in info.rows if pk))
    return Table(name, sql, columns, (alias,))


def _rows(database: Database, table: Table) -> Iterator[tuple[Any, ...]]:
    """All rows in the order of the key, fetched in pages that the server's limits allow."""
    key = ",".join(table.key)
    selected = ",".join((*table.key, *map(quote, table.columns)))
    places = ",".join("?" * len(table.key))
    after: tuple[Any, ...] | None = None
    count = _ROWS_AT_ONCE
    while True:
        where = f" WHERE ({key}) > ({places})" if after is not None else ""
        sql = f"SELECT {selected} FROM {quote(table.name)}{where} ORDER BY {key} LIMIT {count}"
        try:
            page = database.query_rows(sql, after or ()).rows
        except LimitError:
            if count == 1:
                raise
            count = max(1, count // 8)  # large rows
            continue
        for row in page:
            yield row[len(table.key) :]
        if len(page) < count:
            return
        after = page[-1][: len(table.key)]


def _dump_sequences(database: Database, objects: list[tuple[str, str, str]], write: Write) -> None:
    """AUTOINCREMENT goes on where it was, also if the last rows had been deleted."""
    if not any("autoincrement" in sql.lower() for kind, _, sql in objects if kind == "table"):
        return
    names = {name for kind, name, _ in objects if kind == "table"}
    sequences = database.query_rows("SELECT name, seq FROM sqlite_sequence")
    for name, value in sequences.rows:
        if name in names:
            write(f"DELETE FROM sqlite_sequence WHERE name={literal(name)};\n")
            write(f"INSERT INTO sqlite_sequence VALUES({literal(name)},{literal(value)});\n")


def _if_not_exists(sql: str) -> str:
    """Migrations may have made it already in the database that reads the dump."""
    return _CREATE.sub(r"\g<0>IF NOT EXISTS ", sql, count=1)


def quote(name: str) -> str:
    """A name as SQL, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'
