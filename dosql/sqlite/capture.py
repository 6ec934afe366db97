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

from typing import TYPE_CHECKING

import apsw
import msgspec

from dosql.clock import Clock
from dosql.limits import CHANGES_TRANSACTION_BYTES_MAX
from dosql.sqlite.captured_schema import CapturedSchema
from dosql.sqlite.change_images import (
    Entry,
    Image,
    is_reset,
    reset_entry,
    row_entries,
    schema_entry,
    told,
)
from dosql.sqlite.change_log import ChangeLog, Op, Retention
from dosql.sqlite.change_tables import CapturedTable, captured_tables, quoted
from dosql.sqlite.rows import decode
from dosql.sqlite.sandbox import INTERNAL_PREPARE_FLAGS, Right

if TYPE_CHECKING:
    from dosql.sqlite.transactions import Transactions

_OPS = {"INSERT": Op.INSERT, "UPDATE": Op.UPDATE, "DELETE": Op.DELETE}

_TOO_MUCH = "A transaction changed more than can be told."
_UNTOLD = "A row could not be told."
_UNSEEN = "Rows changed that nobody saw."


class _Pending(msgspec.Struct):
    """A change whose new image is not known yet."""

    table: CapturedTable
    op: Op
    rowid: int
    new_rowid: int
    old: Image | None


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
        self._entries: list[Entry | _Pending] = []
        self._bytes = 0
        self._marks: list[tuple[int, int]] = []
        self._pending: dict[tuple[str, int], int] = {}
        """Entries that wait for their new image, by table and row id."""
        self._schema = CapturedSchema(db)
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
        self._schema.load()
        if self._entries:  # outside of any transaction, so it is committed
            self._entries = [reset_entry(_UNSEEN)]
            self._bytes = 0
            self._pending.clear()
        self._marks.clear()

    def mark(self) -> None:
        """A savepoint was made."""
        self._schema.load()
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
                self._schema.forget()

    def store(self) -> None:
        """Right before COMMIT. Raises as any statement does."""
        self.settle()
        entries = self._entries
        if not entries:
            return
        stored: list[Entry] = []
        for entry in entries:
            assert not isinstance(entry, _Pending)
            if is_reset(entry):
                stored = [entry]
                break
            stored.append(entry)
        self._stored = True
        self.log.append(stored, txid=self._db.next_txid(), now_ms=self._clock.now_ms())

    def committed(self) -> None:
        """It is committed."""
        self._stored = False
        self._clear()

    def rolled_back(self) -> None:
        """The whole transaction was undone."""
        self._clear()
        self._schema.forget()
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

    def _note_schema(self, statement: str) -> None:
        change = self._schema.change(statement)
        if change is not None:
            self._add(schema_entry(change.table, change.statement))
            for table in change.filled:
                self._copy(table)

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
                self._entries.append(reset_entry(_UNTOLD))
                return
            self._add_row(table, Op.INSERT, number, None, image)

    # --- rows ---------------------------------------------------------------------------------

    def on_change(self, update: apsw.PreUpdate) -> None:
        """SQLite's pre-update hook."""
        name = update.table_name
        if name.startswith("_dosql_"):
            return
        tables = self._schema.tables
        try:
            if tables is None:
                self._entries.append(reset_entry(_UNSEEN))
            elif (table := tables.get(name)) is not None and self._has_room():
                self._note(table, _OPS[update.op], update)
        except Exception:
            # The statement goes on, or fails by itself; what was missed is said.
            self._entries.append(reset_entry(_UNTOLD))

    def _has_room(self) -> bool:
        if self._bytes <= CHANGES_TRANSACTION_BYTES_MAX:
            return True
        last = self._entries[-1]
        if isinstance(last, _Pending) or not is_reset(last):
            self._entries.append(reset_entry(_TOO_MUCH))
        return False

    def _note(self, table: CapturedTable, op: Op, update: apsw.PreUpdate) -> None:
        rowid, new_rowid = update.rowid, update.rowid_new
        old = new = None
        if op is not Op.INSERT:
            old = None if table.unreadable else told(table, update, "old")
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
            new = None if table.unreadable else told(table, update, "new")
            if new is None:
                self._pending[table.name, new_rowid] = len(self._entries)
                self._entries.append(_Pending(table, op, rowid, new_rowid, old))
                self._bytes += 100
                return
        self._add_row(table, op, rowid, old, new, new_rowid)

    def _complete(self, at: int, entry: _Pending, new: Image | None) -> None:
        if new is None:
            self._entries[at] = reset_entry(_UNTOLD)
            return
        entries = row_entries(entry.table, entry.op, entry.rowid, entry.old, new, entry.new_rowid)
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
        for entry in row_entries(table, op, rowid, old, new, new_rowid):
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._bytes += len(entry[1]) + 100

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
