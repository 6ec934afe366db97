"""Capture: notes every change of a row, and stores the changes with the commit that makes them.

SQLite's pre-update hook tells of each row before it changes, inside triggers and foreign key
actions too; while there is one, SQLite deletes row by row where it would otherwise truncate. The
changes wait in memory and are undone with the transaction and its savepoints; right before COMMIT
they go into the `ChangeLog`, so they are stored if, and only if, the rows are.

Every statement that may write runs in a savepoint of its own, so that what it leaves behind when
it fails is what it leaves of its changes: nothing.

Where SQLite cannot tell the image of a row (see `CapturedTable.unreadable`; text that is not in
the database's encoding), the row itself is read: now for what it was, and for what it becomes when
it changes next or the statement has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from dosql.clock import Clock
from dosql.limits import CHANGES_TRANSACTION_BYTES_MAX
from dosql.sqlite.change_log import ChangeLog, Op, Retention
from dosql.sqlite.change_tables import CapturedTable, captured_tables, is_captured, quoted
from dosql.sqlite.rows import decode
from dosql.sqlite.sandbox import INTERNAL_PREPARE_FLAGS, Right
from dosql.wire import SqlValue

if TYPE_CHECKING:
    from dosql.sqlite.transactions import Transactions

Image = list[SqlValue]
_Schema = dict[tuple[str, str], tuple[str, str | None]]
"""Kind and name to table and SQL."""
_OPS = {"INSERT": Op.INSERT, "UPDATE": Op.UPDATE, "DELETE": Op.DELETE}
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
_encode = msgspec.msgpack.Encoder().encode

_TOO_MUCH = "A transaction changed more than can be told."
_UNTOLD = "A row could not be told."
_UNSEEN = "Rows changed that nobody saw."


@dataclass(slots=True)
class _Pending:
    """A change whose new image is not known yet."""

    table: CapturedTable
    op: Op
    rowid: int
    new_rowid: int
    old: Image | None


_Entry = tuple[CapturedTable | str, bytes] | _Pending


def resume_capture(
    db: Transactions, clock: Clock, retention: Retention, *, incarnation: int
) -> None:
    """Go on capturing if the database says so. If its changes are those of another life of the
    object, which it was copied from, they are forgotten."""
    if not ChangeLog.exists(db):
        return
    capture = Capture(db, clock, retention)
    if capture.log.incarnation != incarnation:
        with db.savepoint():
            capture.log.restart(incarnation, clock.now_ms())
    db.install(capture)


def start_capture(
    db: Transactions, clock: Clock, retention: Retention, *, incarnation: int
) -> Capture:
    """Capture from now on, for good. Nothing if it is on. Outside of a transaction.

    If there are rows already, the numbering begins at 1: who asks for all changes (those behind
    0) is told that this is not the whole story.
    """
    if db.capture is not None:
        return db.capture
    db.set_deadline(None)  # between the commit and the first captured change nothing may fail
    with db.savepoint():
        tables = [quoted(name) for name in captured_tables(db)]
        has_rows = any(db.internal_query(f"SELECT 1 FROM {name} LIMIT 1") for name in tables)
        ChangeLog.create(db, start=int(has_rows), incarnation=incarnation, now_ms=clock.now_ms())
    capture = Capture(db, clock, retention)
    db.install(capture)
    return capture


class Capture:
    """The capture of one connection; it is on as long as this exists."""

    def __init__(self, db: Transactions, clock: Clock, retention: Retention) -> None:
        self._log = ChangeLog(db, retention)
        self._log_is_stale = False
        self._db = db
        self._clock = clock
        self._entries: list[_Entry] = []
        self._bytes = 0
        self._marks: list[tuple[int, int]] = []
        self._pending: dict[tuple[str, int], int] = {}
        """Entries that wait for their new image, by table and row id."""
        self._tables: dict[str, CapturedTable] | None = None
        self._schema: _Schema = {}
        self._version: object = None
        self._stored = False
        """Since the last commit something went into the log."""

    @property
    def log(self) -> ChangeLog:
        """Where the changes are kept."""
        if self._log_is_stale:
            self._log.reload()
            self._log_is_stale = False
        return self._log

    # --- transactions -------------------------------------------------------------------------

    def begun(self) -> None:
        """A transaction has begun."""
        self._load()
        if self._entries:  # outside of any transaction, so it is committed
            self._entries = [_reset(_UNSEEN)]
            self._bytes = 0
            self._pending.clear()
        self._marks.clear()

    def mark(self) -> None:
        """A savepoint was made."""
        self._load()
        self._marks.append((len(self._entries), self._bytes))

    def release(self) -> None:
        """The newest savepoint is kept."""
        if self._marks:
            self._marks.pop()

    def undo(self) -> None:
        """The newest savepoint was undone."""
        if self._marks:
            length, self._bytes = self._marks.pop()
            del self._entries[length:]
            self._pending.clear()
            if self._db._schema_touched:  # the schema may be an older one again
                self._tables = None

    def store(self) -> None:
        """Right before COMMIT. Raises as any statement does."""
        self.settle()
        entries = self._entries
        if not entries:
            return
        told: list[tuple[CapturedTable | str, bytes]] = []
        for entry in entries:
            assert not isinstance(entry, _Pending)
            if entry[1][:2] == _RESET_HEAD:
                told = [entry]
                break
            told.append(entry)
        self._stored = True
        self.log.append(told, txid=self._db.next_txid(), now_ms=self._clock.now_ms())

    def committed(self) -> None:
        """It is committed."""
        self._stored = False
        self._clear()

    def rolled_back(self) -> None:
        """The whole transaction was undone."""
        self._clear()
        self._tables = None
        self._log_is_stale = self._log_is_stale or self._stored
        self._stored = False

    def _clear(self) -> None:
        self._entries.clear()
        self._marks.clear()
        self._pending.clear()
        self._bytes = 0

    # --- statements ---------------------------------------------------------------------------

    def settle(self, statement: str | None = None) -> None:
        """After a statement, within its savepoint: complete its changes. ``statement``: its text,
        if it may have changed the schema."""
        while self._pending:
            _, at = self._pending.popitem()
            entry = self._entries[at]
            assert isinstance(entry, _Pending)
            self._complete(at, entry, self._read(entry.table, entry.new_rowid))
        if statement is not None:
            self._note_schema(statement)

    def _load(self) -> dict[str, CapturedTable]:
        tables = self._tables
        if tables is None:
            tables = self._tables = captured_tables(self._db)
            self._schema = self._read_schema()
            self._version = self._read_version()
        return tables

    def _read_version(self) -> object:
        return self._db.internal_query("PRAGMA schema_version")[0][0]

    def _read_schema(self) -> _Schema:
        return {
            (str(kind), str(name)): (str(table), None if sql is None else str(sql))
            for kind, name, table, sql in self._db.internal_query(_SCHEMA)
            if is_captured(str(table)) and is_captured(str(name))
        }

    def _note_schema(self, statement: str) -> None:
        if self._tables is not None and self._read_version() == self._version:
            return
        before, tables = self._schema, self._tables or {}
        self._tables = None
        now = self._load()
        changed = self._schema.items() ^ before.items()
        if not changed:
            return
        filled = [each for name, each in now.items() if name not in tables and self._has_rows(each)]
        if not tables.keys() <= now.keys():
            filled = []  # one got another name
        subject = min(changed, key=_by_subject(before))
        table = subject[1][0]
        if filled:  # CREATE TABLE ... AS SELECT, whose rows no hook tells of
            statement = self._schema["table", filled[0].name][1] or statement
        self._add(table, _encode((Op.SCHEMA, statement.strip())))
        for each in filled:
            self._copy(each)

    def _has_rows(self, table: CapturedTable) -> bool:
        return bool(self._db.internal_query(f"SELECT 1 FROM {quoted(table.name)} LIMIT 1"))

    def _copy(self, table: CapturedTable) -> None:
        rowid = table.rowid or "rowid"
        for (number,) in self._db.internal_query(
            f"SELECT {rowid} FROM {quoted(table.name)} ORDER BY {rowid}"
        ):
            assert isinstance(number, int)
            if not self._has_room():
                return
            image = self._read(table, number)
            if image is None:
                self._entries.append(_reset(_UNTOLD))
                return
            self._add_row(table, Op.INSERT, number, None, image)

    # --- rows ---------------------------------------------------------------------------------

    def on_change(self, update: apsw.PreUpdate) -> None:
        """SQLite's pre-update hook."""
        name = update.table_name
        if name.startswith("_dosql_"):
            return
        tables = self._tables
        try:
            if tables is None:
                self._entries.append(_reset(_UNSEEN))
            elif (table := tables.get(name)) is not None and self._has_room():
                self._note(table, _OPS[update.op], update)
        except Exception:
            # The statement goes on, or fails by itself; what was missed is said.
            self._entries.append(_reset(_UNTOLD))

    def _has_room(self) -> bool:
        if self._bytes <= CHANGES_TRANSACTION_BYTES_MAX:
            return True
        last = self._entries[-1]
        if isinstance(last, _Pending) or last[1][:2] != _RESET_HEAD:
            self._entries.append(_reset(_TOO_MUCH))
        return False

    def _note(self, table: CapturedTable, op: Op, update: apsw.PreUpdate) -> None:
        rowid, new_rowid = update.rowid, update.rowid_new
        old = new = None
        if op is not Op.INSERT:
            old = None if table.unreadable else _told(table, update, "old")
            if old is None:
                old = self._read(table, rowid)
                if old is None:
                    raise LookupError
            if self._pending:
                at = self._pending.pop((table.name, rowid), None)
                if at is not None:
                    entry = self._entries[at]
                    assert isinstance(entry, _Pending)
                    self._complete(at, entry, old)
        if op is not Op.DELETE:
            new = None if table.unreadable else _told(table, update, "new")
            if new is None:
                self._pending[table.name, new_rowid] = len(self._entries)
                self._entries.append(_Pending(table, op, rowid, new_rowid, old))
                self._bytes += 100
                return
        self._add_row(table, op, rowid, old, new, new_rowid)

    def _complete(self, at: int, entry: _Pending, new: Image | None) -> None:
        if new is None:
            self._entries[at] = _reset(_UNTOLD)
            return
        entries = self._rows(entry.table, entry.op, entry.rowid, entry.old, new, entry.new_rowid)
        self._entries[at] = entries[0]
        self._bytes += len(entries[0][1])
        if len(entries) > 1:  # a key that changed
            self._entries.insert(at + 1, entries[1])
            waiting = self._pending
            self._pending = {key: where + (where > at) for key, where in waiting.items()}

    def _add_row(
        self,
        table: CapturedTable,
        op: Op,
        rowid: int,
        old: Image | None,
        new: Image | None,
        new_rowid: int = 0,
    ) -> None:
        for described, encoded in self._rows(table, op, rowid, old, new, new_rowid):
            self._add(described, encoded)

    def _add(self, table: CapturedTable | str, encoded: bytes) -> None:
        self._entries.append((table, encoded))
        self._bytes += len(encoded) + 100

    def _rows(
        self,
        table: CapturedTable,
        op: Op,
        rowid: int,
        old: Image | None,
        new: Image | None,
        new_rowid: int,
    ) -> list[tuple[CapturedTable, bytes]]:
        """The change as it is stored. One of the key is the end of a row and the beginning of
        another."""
        if op is Op.UPDATE:
            assert old is not None and new is not None
            key = _key(table, old, rowid), _key(table, new, new_rowid)
            if key[0] != key[1]:
                return [
                    (table, _encode((Op.DELETE, _told_rowid(table, rowid, old), old, None))),
                    (table, _encode((Op.INSERT, _told_rowid(table, new_rowid, new), None, new))),
                ]
        image = new if old is None else old
        assert image is not None
        return [(table, _encode((op, _told_rowid(table, rowid, image), old, new)))]

    def _read(self, table: CapturedTable, rowid: int) -> Image | None:
        """The row as it is now; None if it cannot be found."""
        db = self._db
        if table.rowid is None:
            return None
        sandbox = db._sandbox
        right, sandbox.right = sandbox.right, Right.INTERNAL
        try:
            found = db._connection.execute(
                table.select, (rowid,), prepare_flags=INTERNAL_PREPARE_FLAGS
            ).fetchall()
        finally:
            sandbox.right = right
        rows = list(decode(found, db._encoding))
        return list(rows[0]) if rows else None


def _by_subject(
    before: _Schema,
) -> Callable[[tuple[tuple[str, str], object]], tuple[bool, bool, str]]:
    """Order of what a statement changed: tables first, and the names they had; a virtual table
    comes before its shadows."""
    return lambda each: (each[0][0] != "table", each[0] not in before, each[0][1])


def _told(table: CapturedTable, update: apsw.PreUpdate, which: str) -> Image | None:
    """SQLite's own image; None if it is not to be had."""
    try:
        values: Any = getattr(update, which)
    except (UnicodeDecodeError, apsw.RangeError):
        return None
    image = list(values) if table.positions is None else [values[at] for at in table.positions]
    for at in table.reals:
        if type(image[at]) is int:
            image[at] = float(image[at])
    return image


def _key(table: CapturedTable, image: Image, rowid: int) -> object:
    key = tuple([image[at] for at in table.key])
    return rowid if not key or None in key else key


def _told_rowid(table: CapturedTable, rowid: int, image: Image) -> int | None:
    """The row id where it is the key; NULLs, which SQLite allows in a key, tell no rows apart."""
    if table.rowid is None:
        return None
    for at in table.key:
        if image[at] is None:
            return rowid
    return None if table.key else rowid


def _reset(reason: str) -> tuple[str, bytes]:
    return "", _encode((Op.RESET, reason))


_RESET_HEAD = _encode((Op.RESET, ""))[:2]
