"""ChangeLog: the captured changes of a database, kept in the database itself.

A row of ``_dosql_changes`` holds changes of one commit: of all of them, or of as many as fit.
Whatever is true of the tenant's rows (durable, replicated, restored) is so of their changes.

``payload`` is MessagePack: ``[tables, [table of each change], [change...]]``. A table is
``[name, columns, key, name of the row id]``; a change is ``[op, row id, old, new]``, or
``[op, text]`` where it is not one of a row (see `Op`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import msgspec

from dosql import limits
from dosql.sqlite.change_tables import CapturedTable
from dosql.sqlite.rows import Row
from dosql.wire.values import SqlValue

if TYPE_CHECKING:
    from dosql.sqlite.connection import Connection

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[list[Any], list[int], list[Any]]).decode

_CREATE = (
    """CREATE TABLE _dosql_changes (
  seq INTEGER PRIMARY KEY,
  count INTEGER NOT NULL,
  txid INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  bytes_so_far INTEGER NOT NULL,
  payload BLOB NOT NULL
) STRICT""",
    """CREATE TABLE _dosql_changes_state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  start INTEGER NOT NULL,
  incarnation INTEGER NOT NULL,
  since_ms INTEGER NOT NULL
) STRICT""",
    """CREATE TABLE _dosql_changes_slots (
  name TEXT PRIMARY KEY,
  acked INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  acked_at_ms INTEGER
) STRICT""",
)
_EXISTS = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_dosql_changes_state'"
_EDGE = "SELECT seq, count, at_ms, bytes_so_far, length(payload) FROM _dosql_changes ORDER BY seq"
_INSERT = "INSERT INTO _dosql_changes VALUES (?, ?, ?, ?, ?, ?)"
_READ = "SELECT seq, txid, at_ms, payload FROM _dosql_changes WHERE seq > ? ORDER BY seq LIMIT 1"
_DELETE = "DELETE FROM _dosql_changes WHERE seq = ?"
_CHUNK_BYTES_MAX = 128 * 1024
_PRUNED_AT_ONCE = 4


class Op(IntEnum):
    """What a change is. Stored: the numbers never change."""

    INSERT = 0
    UPDATE = 1
    DELETE = 2
    SCHEMA = 3
    """``[op, statement]``: the schema of the table changed."""
    RESET = 4
    """``[op, reason]``: more changed than can be told."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """One change as it was stored."""

    seq: int
    txid: int
    at_ms: int
    op: Op
    table: str
    columns: tuple[str, ...] = ()
    pk: dict[str, SqlValue] | None = None
    old: list[SqlValue] | None = None
    new: list[SqlValue] | None = None
    text: str | None = None
    """The statement of a schema change, the reason of a reset."""


class Retention(msgspec.Struct, frozen=True):
    """How long changes are kept: until one of these is passed."""

    count: int = limits.CHANGES_KEPT_MAX
    age_ms: int = limits.CHANGES_KEPT_S_MAX * 1000
    size_bytes: int = limits.CHANGES_KEPT_BYTES_MAX


class _Oldest(msgspec.Struct):
    seq: int
    count: int
    at_ms: int
    bytes_before: int


class ChangeLog:
    """The log of one database, whose tables exist."""

    def __init__(self, db: Connection, retention: Retention) -> None:
        self.last = 0
        """Number of the newest change; 0: there was none ever."""
        self.floor = 0
        """Every change behind this number is kept."""
        self._db = db
        self._retention = retention
        self._bytes = 0
        self._oldest: _Oldest | None = None
        self._held: int | None = None
        """What slots have yet to acknowledge begins behind this number."""
        self.reload()

    @staticmethod
    def exists(db: Connection) -> bool:
        """Whether the database has one."""
        return bool(db.internal_query(_EXISTS))

    @staticmethod
    def create(db: Connection, *, start: int, incarnation: int, now_ms: int) -> None:
        """In a transaction: make an empty one, whose first change is the one behind ``start``."""
        for statement in _CREATE:
            db.internal_run(statement)
        db.internal_run(
            "INSERT INTO _dosql_changes_state VALUES (1, ?, ?, ?)", (start, incarnation, now_ms)
        )

    @property
    def incarnation(self) -> int:
        """In which life of the object the numbering began."""
        rows = self._db.internal_query("SELECT incarnation FROM _dosql_changes_state")
        return int(str(rows[0][0]))

    def reload(self) -> None:
        """After something was undone, or slots have changed: look again."""
        db = self._db
        self.last = self.floor = int(
            str(db.internal_query("SELECT start FROM _dosql_changes_state")[0][0])
        )
        self._bytes = 0
        self._load_oldest()
        newest = db.internal_query(f"{_EDGE} DESC LIMIT 1")
        if newest:
            self.last, _, _, self._bytes, _ = _numbers(newest[0])
        held = db.internal_query("SELECT min(acked) FROM _dosql_changes_slots")[0][0]
        self._held = None if held is None else int(str(held))

    def _load_oldest(self) -> None:
        rows = self._db.internal_query(f"{_EDGE} LIMIT 1")
        self._oldest = None
        if rows:
            seq, count, at_ms, so_far, size = _numbers(rows[0])
            self._oldest = _Oldest(seq, count, at_ms, so_far - size)
            self.floor = seq - count

    def restart(self, incarnation: int, now_ms: int) -> None:
        """In a transaction: forget all changes, and number on from where no earlier life of the
        object was: whoever followed that one must begin anew."""
        start = max(self.last + 1, now_ms * 1000)
        self._db.internal_run("DELETE FROM _dosql_changes")
        self._db.internal_run(
            "UPDATE _dosql_changes_state SET start = ?, incarnation = ?", (start, incarnation)
        )
        self.reload()

    # --- writing ------------------------------------------------------------------------------

    def append(
        self, changes: Sequence[tuple[CapturedTable | str, bytes]], *, txid: int, now_ms: int
    ) -> None:
        """In a transaction, right before its commit: store the changes, and forget a few old
        ones. If the commit fails: `reload`."""
        size = 0
        begin = 0
        for at, (_, encoded) in enumerate(changes):
            size += len(encoded)
            if size > _CHUNK_BYTES_MAX:
                self._append(changes[begin : at + 1], txid, now_ms)
                begin, size = at + 1, 0
        if begin < len(changes):
            self._append(changes[begin:], txid, now_ms)
        self._prune(now_ms)

    def _append(
        self, changes: Sequence[tuple[CapturedTable | str, bytes]], txid: int, now_ms: int
    ) -> None:
        known: dict[CapturedTable | str, int] = {}
        tables = [known.setdefault(table, len(known)) for table, _ in changes]
        payload = _encode(
            (
                [_described(table) for table in known],
                tables,
                [msgspec.Raw(encoded) for _, encoded in changes],
            )
        )
        self.last += len(changes)
        before, self._bytes = self._bytes, self._bytes + len(payload)
        row = (self.last, len(changes), txid, now_ms, self._bytes, payload)
        self._db.internal_run(_INSERT, row)
        if self._oldest is None:
            self._oldest = _Oldest(self.last, len(changes), now_ms, before)

    def _prune(self, now_ms: int) -> None:
        """The newest row is always kept: the numbering goes on from it."""
        for _ in range(_PRUNED_AT_ONCE):
            oldest = self._oldest
            if oldest is None or oldest.seq == self.last:
                return
            is_held = self._held is not None and oldest.seq > self._held
            if not self._is_over(oldest, now_ms, limits.CHANGES_SLOT_FACTOR if is_held else 1):
                return
            self._db.internal_run(_DELETE, (oldest.seq,))
            self._load_oldest()

    def _is_over(self, oldest: _Oldest, now_ms: int, factor: int) -> bool:
        retention = self._retention
        return (
            self.last - oldest.seq >= retention.count * factor
            or now_ms - oldest.at_ms > retention.age_ms * factor
            or self._bytes - oldest.bytes_before > retention.size_bytes * factor
        )

    # --- reading ------------------------------------------------------------------------------

    def read(self, after: int, bytes_max: int) -> list[Row]:
        """Rows with changes behind ``after``, for `changes_in`: at least one, if there is any."""
        rows: list[Row] = []
        size = 0
        while size < bytes_max:
            found = self._db.internal_query(_READ, (after,))
            if not found:
                break
            rows += found
            seq, _, _, payload = found[0]
            after = int(str(seq))
            size += len(payload) if isinstance(payload, bytes) else 0
        return rows


def changes_in(rows: Sequence[Row], after: int) -> Iterator[Change]:
    """The changes behind ``after`` in rows that `ChangeLog.read` gave, in order."""
    for seq, txid, at_ms, payload in rows:
        assert isinstance(seq, int) and isinstance(txid, int) and isinstance(at_ms, int)
        assert isinstance(payload, bytes)
        tables, which, changes = _decode(payload)
        number = seq - len(changes)
        for table_at, change in zip(which, changes, strict=True):
            number += 1
            if number > after:
                yield _change(number, txid, at_ms, tables[table_at], change)


def _change(seq: int, txid: int, at_ms: int, table: list[Any], change: list[Any]) -> Change:
    name, columns, key, rowid_name = table
    op = Op(change[0])
    if op >= Op.SCHEMA:
        return Change(seq, txid, at_ms, op, name, text=change[1])
    _, rowid, old, new = change
    image = new if old is None else old
    pk = {columns[at]: image[at] for at in key} if rowid is None else {rowid_name: rowid}
    return Change(seq, txid, at_ms, op, name, tuple(columns), pk, old, new)


def _described(table: CapturedTable | str) -> tuple[Any, ...]:
    if isinstance(table, str):
        return table, (), (), None
    return table.name, table.columns, table.key, table.rowid


def _numbers(row: Row) -> tuple[int, ...]:
    return tuple(int(str(value)) for value in row)
