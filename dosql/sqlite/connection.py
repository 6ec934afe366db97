"""Connection: the open file, its state, and the server's own statements on it.

`Database` adds what tenants may do. Here stands who is refused when, what an error means for
the file, and how the server's right is lent to a statement and taken back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import apsw

from dosql.clock import Clock
from dosql.errors import BudgetError, ConflictError, DosqlError, ForbiddenError, QuotaError
from dosql.limits import (
    DATABASE_BYTES_MAX,
    INLINE_BULK_PAGES_MAX,
    INLINE_SQL_BYTES_MAX,
    PROGRESS_STEPS,
    PROGRESS_STEPS_ON_THREAD,
    RESERVED_TABLE_PREFIX,
    RESULT_BYTES_MAX,
    ROWS_MAX,
    SCHEMA_OBJECTS_MAX,
    SERVER_TABLES,
    STATEMENT_HEAP_BYTES_MAX,
    VALUE_BYTES_MAX,
)
from dosql.sqlite import border
from dosql.sqlite.opening import open_connection, open_read_only
from dosql.sqlite.rows import Row
from dosql.sqlite.sandbox import (
    INTERNAL_PREPARE_FLAGS,
    RESERVED_NAME,
    SERVER_REFERENCE,
    Right,
    Sandbox,
)
from dosql.sqlite.statements import STATEMENTS_MAX, Inspector, Shape
from dosql.sqlite.watchdog import WATCHDOG
from dosql.wire import Params, SqlValue

if TYPE_CHECKING:
    from dosql.sqlite.capture import Capture

_DISK_RESERVE_BYTES = 1024 * 1024
"""With less room than this on the disk, "full" means the disk and not the quota."""
_RESERVED_NAMES = (
    f"SELECT name FROM sqlite_schema WHERE lower(substr(name, 1, {len(RESERVED_TABLE_PREFIX)}))"
    f" = '{RESERVED_TABLE_PREFIX}'"
)
_MADE = (
    "SELECT name, 'virtual', sql FROM sqlite_schema WHERE type = 'table' AND rootpage = 0"
    " UNION ALL SELECT m.name, 'parent', f.\"table\""
    " FROM sqlite_schema AS m, pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table'"
)


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """What one answer, and the file, may grow to."""

    rows: int = ROWS_MAX
    result_bytes: int = RESULT_BYTES_MAX
    database_bytes: int = DATABASE_BYTES_MAX


_NO_LIMITS_GIVEN = DatabaseLimits()


class Connection:
    """Opens the file, creating it if it is missing.

    Raises:
        CorruptError: the file is not a database, or damaged.
        UnavailableError: it cannot be opened or read.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Clock,
        limits: DatabaseLimits = _NO_LIMITS_GIVEN,
        vfs: str | None = None,
        read_only: bool = False,
        server_tables: frozenset[str] = SERVER_TABLES,
    ) -> None:
        """``read_only``: see `open_read_only`. ``server_tables``: those that tenants' SQL does not
        reach, beside those with the reserved prefix; in lower case."""
        self.wal_frames = 0
        """Committed frames in the -wal since the last checkpoint."""
        self.broken: DosqlError | None = None
        """Why this database refuses all calls, for good."""
        self._refusal: DosqlError | None = None
        """Raised by every call: broken, or inside a transaction that SQLite has ended."""
        self._begun = False
        """Between begin() and its commit or rollback, whatever became of the transaction."""
        self._write_refusal: DosqlError | None = None
        self._undone = 0
        """How often something was undone, which no counter of SQLite's shows."""
        self._scan_steps = 0
        """What the trace of the running statement counted."""
        self._schema_touched = False
        """The schema changed in the open transaction: a rollback makes shapes wrong."""
        self.next_txid: Callable[[], int] = _unnumbered
        """The number of the batch that the next commit will be in."""
        self._capture: Capture | None = None
        self._clock = clock
        self._monotonic = clock.monotonic
        self._deadline: float | None = None
        self._expired = False
        self._movable = False
        """A statement that takes long here will be run again on a worker thread."""
        self._length = VALUE_BYTES_MAX
        """Bytes that a value may have now."""
        self._bounded: Shape | None = None
        """The last statement that ran; None: the next one has to be looked at."""
        self._heap_max = 0
        self._too_much = False
        self._committed = False
        """The running statement has been committed: it is too late to interrupt it."""
        self.watch = 0
        self._controlling = threading.Lock()
        self._rows_max = limits.rows
        self._bytes_max = limits.result_bytes
        self._folder = os.path.dirname(os.path.abspath(path))
        try:
            self._connection = (
                open_read_only(path, statements_max=STATEMENTS_MAX)
                if read_only
                else open_connection(path, vfs, statements_max=STATEMENTS_MAX)
            )
        except Exception as error:
            ours = border.translate(error)
            if ours is None:
                raise
            raise ours from error
        self._sandbox = Sandbox(self._connection, server_tables)
        self._inspector = Inspector(self._connection, self._sandbox)
        self._known = self._inspector.known
        self._cursor = self._connection.cursor()
        try:
            self._set_up(limits)
        except Exception as error:
            self._connection.close(True)
            self._fail(error)

    def _set_up(self, limits: DatabaseLimits) -> None:
        connection = self._connection
        self.page_size = int(connection.pragma("page_size"))
        """Bytes per page; fixed for the life of the file."""
        self._encoding = str(connection.pragma("encoding"))
        connection.pragma("max_page_count", max(1, limits.database_bytes // self.page_size))
        frames = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
        self.wal_frames = max(0, frames)  # -1: there is no WAL
        connection.authorizer = self._sandbox
        self._progress_steps = PROGRESS_STEPS
        connection.set_progress_handler(self._is_past_deadline, PROGRESS_STEPS)
        connection.set_commit_hook(self._before_commit, id=self._before_commit)
        connection.set_wal_hook(self._on_commit)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; False once SQLite has ended it."""
        return self._connection.in_transaction

    @property
    def size_bytes(self) -> int:
        """Size of the database, the open transaction included."""
        return self._count("page_count") * self.page_size

    @property
    def used_bytes(self) -> int:
        """`size_bytes` without the pages that are free again."""
        return self.size_bytes - self._count("freelist_count") * self.page_size

    def _count(self, pragma: str) -> int:
        """Asked between events as well, when the deadline of the last one is long past."""
        deadline, self._deadline = self._deadline, None
        try:
            return int(str(self.internal_query(f"PRAGMA {pragma}")[0][0]))
        finally:
            self._deadline = deadline

    @property
    def state(self) -> tuple[int, int]:
        """Differs from an earlier one if rows were written, or something was undone, since."""
        return self._connection.total_changes(), self._undone

    def set_deadline(
        self, seconds: float | None, *, on_thread: bool = False, movable: bool = False
    ) -> None:
        """Statements that still run after so many seconds from now raise BudgetError
        (``query_timeout``) and leave nothing behind; None: no deadline.

        ``on_thread``: they run beside the event loop, and are looked at less often. ``movable``:
        after that error they will be, so it also meets those whose values are too long to be
        handled on the event loop.
        """
        self.watch = 0
        if movable != self._movable:
            self._movable = movable
            self._bounded = None
        steps = PROGRESS_STEPS_ON_THREAD if on_thread else PROGRESS_STEPS
        if steps != self._progress_steps:
            self._progress_steps = steps
            self._connection.set_progress_handler(self._is_past_deadline, steps)
        self._expired = self._too_much = self._committed = False
        self._deadline = None if seconds is None else self._monotonic() + seconds
        if on_thread and seconds is not None:
            self._heap_max = apsw.memory_used() + STATEMENT_HEAP_BYTES_MAX
            WATCHDOG.watch(self, seconds)
        else:
            self._heap_max = 0

    def stop_overdue(self) -> None:
        """Interrupt what runs, if it is past its deadline. Callable from any thread."""
        with self._controlling:
            if self._is_past_deadline():
                self._connection.interrupt()

    def internal_query(self, sql: str, params: Params = ()) -> list[Row]:
        """Run a statement of the server's and return its rows, without limits on their number.

        It must not read its own tables inside a WITH or a sub-query in FROM: SQLite does not
        tell those from a tenant's view, so the sandbox refuses them.
        """
        if self._refusal is not None:
            self._refuse()
        if self._length != VALUE_BYTES_MAX:
            self._set_length(VALUE_BYTES_MAX)
        sandbox = self._sandbox
        right, sandbox.right = sandbox.right, Right.INTERNAL
        try:
            return self._connection.execute(
                sql, params, prepare_flags=INTERNAL_PREPARE_FLAGS
            ).fetchall()
        except Exception as error:
            self._fail(error, sql)
        finally:
            self._committed = False
            sandbox.right = right

    def internal_run(self, sql: str, params: Params = ()) -> int:
        """Run a statement of the server's; rows changed. The tenant's last_insert_rowid() is
        left alone. A tenant's trigger that it fires has the tenant's right, no more."""
        connection, sandbox = self._connection, self._sandbox
        last = connection.last_insert_rowid()
        before = connection.total_changes()
        sandbox.schema = False
        self.internal_query(sql, params)
        connection.set_last_insert_rowid(last)
        if sandbox.schema:
            self._touch_schema()
        return connection.changes() if connection.total_changes() != before else 0

    def checkpoint(self) -> None:
        """Move all committed frames into the main file and empty the -wal; nothing is synced.

        Raises:
            OverloadedError: ``object_busy``: a transaction or an iterator is open.
        """
        if self._refusal is not None:
            self._refuse()
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except Exception as error:
            self._fail(error)
        self.wal_frames = 0

    def refuse_writes(self, error: DosqlError | None) -> None:
        """Until it is called with None, whatever would write raises this error."""
        if error is not self._write_refusal:
            self._write_refusal = error
            self._control(f"PRAGMA query_only = {int(error is not None)}")

    def interrupt(self) -> None:
        """Stop the running statement; it raises UnavailableError (``interrupted``). Callable
        from any thread."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the file as it is: an open transaction is lost, the -wal stays. Idempotent."""
        with self._controlling:  # the watchdog may be about to interrupt what ran here last
            self.watch = self._heap_max = 0
            self._deadline = None
        self._connection.close(True)

    @property
    def capture(self) -> Capture | None:
        """The capture of changes; None: they are not captured."""
        return self._capture

    def install(self, capture: Capture | None) -> None:
        """Outside of a transaction: capture changes from now on; None: no more."""
        connection = self._connection
        self._capture = capture
        connection.preupdate_hook(None if capture is None else capture.on_change)
        # Statements prepared before would still truncate tables: this has all prepared anew.
        connection.authorizer = self._sandbox

    # --- for `replace_contents` -----------------------------------------------------------

    def backup_from(self, other: apsw.Connection) -> apsw.Backup:
        """SQLite's copy of all pages of ``other`` into this database, in one commit."""
        if self._refusal is not None:
            self._refuse()
        return self._connection.backup("main", other, "main")

    def apply_changeset(
        self, changeset: bytes, on_conflict: Callable[[int, apsw.TableChange], int]
    ) -> None:
        """In a transaction: make the changes of a session; ``on_conflict`` answers as SQLite asks.
        No trigger fires: what triggers did is among the changes."""
        connection, sandbox = self._connection, self._sandbox
        right, sandbox.right = sandbox.right, Right.INTERNAL
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        try:
            apsw.Changeset.apply(changeset, connection, conflict=on_conflict)
        except Exception as error:
            self._fail(error)
        finally:
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
            sandbox.right = right

    def failed(self, error: Exception) -> NoReturn:
        """Raise what an error of such a copy means."""
        self._fail(error)

    def replaced(self) -> None:
        """Other pages may be there: nothing that was known of them holds any more."""
        self._undone += 1
        self._known.clear()
        if self.broken is None:
            self._encoding = str(self.internal_query("PRAGMA encoding")[0][0])
            self.internal_query("SELECT count(*) FROM sqlite_schema")
            # The copy calls no commit hook; who counts commits by it is to see this one.
            self._control("BEGIN IMMEDIATE")
            self._control("COMMIT")

    # --- for Database --------------------------------------------------------------------

    def _set_length(self, length: int) -> None:
        self._connection.limit(apsw.SQLITE_LIMIT_LENGTH, length)
        self._length = length
        self._bounded = None

    def _bound(self, shape: Shape) -> None:
        """Before a statement runs: values may be as long as it may handle here."""
        if shape.bulk and self._movable:
            self._check_bulk()
        length = shape.inline_bytes if self._movable else shape.thread_bytes
        if length != self._length:
            self._set_length(length)
        self._bounded = None if shape.bulk else shape

    def _check_bulk(self) -> None:
        """Raises BudgetError where the event loop is no place for what works on a whole table."""
        pages = self.internal_query("PRAGMA page_count")[0][0]
        if int(str(pages)) > INLINE_BULK_PAGES_MAX:
            raise BudgetError("The statement took longer than allowed.")

    def _check_sql(self, sql: str) -> None:
        if len(sql) > INLINE_SQL_BYTES_MAX and self._movable:
            raise BudgetError("The statement took longer than allowed.")
        if self._length != VALUE_BYTES_MAX:
            self._set_length(VALUE_BYTES_MAX)

    def _inspect(self, sql: str) -> Shape:
        self._check_sql(sql)
        try:
            return self._inspector.inspect(sql)
        except Exception as error:
            self._fail(error, sql, preparing=True)

    def _inspect_first(self, sql: str) -> tuple[Shape, str]:
        self._check_sql(sql)
        try:
            return self._inspector.inspect_first(sql)
        except Exception as error:
            self._fail(error, sql, preparing=True)

    def _control(self, sql: str) -> None:
        """BEGIN, COMMIT, savepoints: the server's alone.

        The deadline does not hold for them: SQLite counts the steps of a statement over all its
        runs, so that it would now and then interrupt a ROLLBACK, and leave the transaction open.
        """
        sandbox = self._sandbox
        right, sandbox.right = sandbox.right, Right.INTERNAL
        with self._controlling:  # the watchdog looks at it and interrupts in one go
            deadline, self._deadline = self._deadline, None
        try:
            self._cursor.execute(sql, prepare_flags=INTERNAL_PREPARE_FLAGS)
        except Exception as error:
            self._fail(error)
        finally:
            sandbox.right = right
            self._committed = False
            self._deadline = deadline

    def _reserved_names(self) -> frozenset[SqlValue]:
        return frozenset(row[0] for row in self.internal_query(_RESERVED_NAMES))

    def _check_names(self, before: frozenset[SqlValue]) -> None:
        """What the sandbox does not see: the new name in ALTER TABLE ... RENAME TO, the parent of
        a foreign key, the table that a full-text table shows."""
        if self._reserved_names() != before:
            raise ForbiddenError(RESERVED_NAME.message, code=RESERVED_NAME.code)
        sandbox = self._sandbox
        for name, kind, sql in self.internal_query(_MADE):
            if sandbox.is_servers(str(name)):
                continue
            if kind == "virtual" and sandbox.shows_servers(str(sql)):
                raise ForbiddenError(SERVER_REFERENCE.message, code=SERVER_REFERENCE.code)
            if kind == "parent" and sandbox.is_servers(str(sql)):
                raise ForbiddenError(SERVER_REFERENCE.message, code=SERVER_REFERENCE.code)

    def _check_schema_size(self) -> None:
        """Raises QuotaError ``schema_limit``."""
        count = self.internal_query("SELECT count(*) FROM sqlite_schema")[0][0]
        if int(str(count)) > SCHEMA_OBJECTS_MAX:
            raise QuotaError(
                f"A database has at most {SCHEMA_OBJECTS_MAX:,} tables, indexes, views and "
                "triggers.",
                code="schema_limit",
            )

    def _drop_cursor(self) -> None:
        """End a statement whose rows were not all drawn."""
        self._cursor.close(True)
        self._cursor = self._connection.cursor()

    def _touch_schema(self) -> None:
        self._schema_touched = True
        self._known.clear()

    def _forget_shapes(self) -> None:
        """After something was undone: the schema may be an older one again."""
        self._undone += 1
        if self._schema_touched:
            self._known.clear()

    def _refuse(self) -> NoReturn:
        assert self._refusal is not None
        raise self._refusal.with_traceback(None)

    def _fail(self, error: Exception, sql: str = "", *, preparing: bool = False) -> NoReturn:
        """Raise what the error means, and remember what it did to this database."""
        ours = border.translate(
            error,
            sql=sql,
            preparing=preparing,
            expired=self._expired,
            no_space=isinstance(error, apsw.FullError) and self._is_disk_full(),
            denial=self._sandbox.denial,
        )
        shortened = self._movable and self._length < VALUE_BYTES_MAX and not preparing
        if shortened and isinstance(error, apsw.TooBigError):
            ours = BudgetError("The statement took longer than allowed.")
        if self._too_much and isinstance(error, apsw.InterruptError):
            ours = BudgetError("The statement needs too much memory.", code="memory_limit")
        refusal = self._write_refusal
        if refusal is not None and isinstance(error, apsw.ReadOnlyError):
            ours = refusal.renewed()
        if border.is_breaking(error):
            self.broken = self._refusal = ours
        elif self._begun and not self._connection.in_transaction:
            self._refusal = aborted("transaction_aborted")
        self._forget_shapes()
        if ours is None or ours is error:
            raise error
        raise ours from error

    def _is_disk_full(self) -> bool:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize < _DISK_RESERVE_BYTES

    def _is_past_deadline(self) -> bool:
        """SQLite's progress callback: True interrupts the statement.

        SQLite calls it once more behind the last step of a statement, and would report one as
        interrupted that has just been committed.
        """
        if self._committed:
            return False
        if self._heap_max and apsw.memory_used() > self._heap_max:
            self._too_much = True
            return True
        deadline = self._deadline
        if deadline is None or self._monotonic() < deadline:
            return False
        self._expired = True
        return True

    def _before_commit(self) -> bool:
        """SQLite's commit hook: from here to the end of the statement nothing may stop it."""
        self._committed = True
        return False

    def _on_commit(self, connection: apsw.Connection, schema: str, frames: int) -> int:
        """SQLite's WAL hook, after each commit."""
        self.wal_frames = frames
        self._committed = False
        return apsw.SQLITE_OK


def _unnumbered() -> int:
    return 0


def aborted(code: str) -> ConflictError:
    """The error for a transaction that SQLite has ended on its own."""
    return ConflictError("SQLite rolled the transaction back; nothing of it was kept.", code=code)
