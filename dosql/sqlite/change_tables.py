"""Which tables have their changes captured, and what must be known of each to do so."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from dosql.limits import RESERVED_TABLE_PREFIX, SERVER_TABLES
from dosql.sqlite.rows import Row

if TYPE_CHECKING:
    from dosql.sqlite.connection import Connection

_TABLES = "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'"
_COLUMNS = "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid"
_STORED_NEVER = 2
"""``hidden`` of a generated column that is VIRTUAL; 3 is STORED."""
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


class CapturedTable(msgspec.Struct, frozen=True, eq=False):
    """One table as it is until the schema changes."""

    name: str
    columns: tuple[str, ...]
    """In the order of the images; without generated ones, which follow from the others."""
    key: tuple[int, ...]
    """Where in `columns` the primary key is, in its own order; empty: the row id is the key."""
    rowid: str | None
    """By what name SQL reaches the row id; None: WITHOUT ROWID, or all names are taken."""
    positions: tuple[int, ...] | None
    """Where the columns are in SQLite's image of a row; None: everywhere, in order."""
    reals: tuple[int, ...]
    """Columns of REAL affinity: SQLite tells the default of one that was added as an integer."""
    unreadable: bool
    """SQLite does not tell the images (a VIRTUAL column): rows must be read."""

    @property
    def select(self) -> str:
        """Reads the row with a row id: for each column its type and its value, text as blob."""
        return _select(self.name, self.columns, self.rowid or "rowid")


@lru_cache(256)
def _select(table: str, columns: tuple[str, ...], rowid: str) -> str:
    names = [quoted(column) for column in columns]
    values = [f"typeof({n}), iif(typeof({n}) = 'text', CAST({n} AS BLOB), {n})" for n in names]
    return f"SELECT {', '.join(values)} FROM {quoted(table)} WHERE {rowid} = ?"


def quoted(name: str) -> str:
    """As an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def captured_tables(db: Connection) -> dict[str, CapturedTable]:
    """All of them by name."""
    listed = db.internal_query(_TABLES)
    names = [
        (str(name), not without_rowid)
        for name, kind, without_rowid in listed
        if kind == "table" and is_captured(str(name))
    ]
    return {name: _table(name, db.internal_query(_COLUMNS, (name,)), has) for name, has in names}


def is_captured(name: str) -> bool:
    """By its name alone; shadow tables of virtual ones are left out too."""
    lower = name.lower()
    return not lower.startswith((RESERVED_TABLE_PREFIX, "sqlite_")) and lower not in SERVER_TABLES


def _table(name: str, columns: list[Row], has_rowid: bool) -> CapturedTable:
    positions = tuple(at for at, column in enumerate(columns) if column[3] == 0)
    plain = [columns[at] for at in positions]
    names = tuple(str(column[0]) for column in plain)
    key = sorted((int(str(column[2])), at) for at, column in enumerate(plain) if column[2])
    taken = {column.lower() for column in names}
    rowid = next((each for each in _ROWID_NAMES if each not in taken), None)
    return CapturedTable(
        name,
        names,
        tuple(at for _, at in key),
        rowid if has_rowid else None,
        None if len(plain) == len(columns) else positions,
        tuple(at for at, column in enumerate(plain) if _is_real(str(column[1]))),
        any(column[3] == _STORED_NEVER for column in columns),
    )


def _is_real(declared: str) -> bool:
    """SQLite's rule (sqlite.org/datatype3.html, section 3.1)."""
    upper = declared.upper()
    if any(word in upper for word in ("INT", "CHAR", "CLOB", "TEXT", "BLOB")):
        return False
    return any(word in upper for word in ("REAL", "FLOA", "DOUB"))
