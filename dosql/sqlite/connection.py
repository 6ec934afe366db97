"""Connection: the open file, its state, and the server's own statements on it.

`Database` adds what tenants may do. Here stands who is refused when, what an error means for
the file, and how the server's right is lent to a statement and taken back.
"""

from __future__ import annotations

import os
from typing import NoReturn

import apsw
import msgspec

from dosql.clock import Clock
from dosql.errors import BudgetError, ConflictError, DosqlError
from dosql.limits import (
    DATABASE_BYTES_MAX,
    RESULT_BYTES_MAX,
    ROWS_MAX,
    SERVER_TABLES,
    VALUE_BYTES_MAX,
)
from dosql.sqlite import border
from dosql.sqlite.budget import Budget
from dosql.sqlite.opening import open_connection, open_read_only
from dosql.sqlite.rows import Row
from dosql.sqlite.sandbox import INTERNAL_PREPARE_FLAGS, Right, Sandbox
from dosql.sqlite.statements import STATEMENTS_MAX, Inspector, Shape
from dosql.sqlite.value_bounds import ValueBounds, took_too_long
from dosql.wire.values import Params


class DatabaseLimits(msgspec.Struct, frozen=True):
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
        self._schema_touched = False
        """The schema changed in the open transaction: a rollback makes shapes wrong."""
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
        self._budget = Budget(self._connection, clock)
        self._bounds = ValueBounds(self._connection, self._pages)
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
        deadline = self._budget.suspend()
        try:
            return int(str(self.internal_query(f"PRAGMA {pragma}")[0][0]))
        finally:
            self._budget.resume(deadline)

    def _pages(self) -> int:
        return int(str(self.internal_query("PRAGMA page_count")[0][0]))

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
        self._bounds.set_movable(movable)
        self._budget.set(seconds, on_thread=on_thread)

    def internal_query(self, sql: str, params: Params = ()) -> list[Row]:
        """Run a statement of the server's and return its rows, without limits on their number.

        It must not read its own tables inside a WITH or a sub-query in FROM: SQLite does not
        tell those from a tenant's view, so the sandbox refuses them.
        """
        if self._refusal is not None:
            self._refuse()
        if self._bounds.length != VALUE_BYTES_MAX:
            self._bounds.widen()
        sandbox = self._sandbox
        right, sandbox.right = sandbox.right, Right.INTERNAL
        try:
            return self._connection.execute(
                sql, params, prepare_flags=INTERNAL_PREPARE_FLAGS
            ).fetchall()
        except Exception as error:
            self._fail(error, sql)
        finally:
            self._budget.committed = False
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
        self._budget.end()
        self._connection.close(True)

    # --- for Database --------------------------------------------------------------------

    def _inspect(self, sql: str) -> Shape:
        self._bounds.check_text(sql)
        try:
            return self._inspector.inspect(sql)
        except Exception as error:
            self._fail(error, sql, preparing=True)

    def _inspect_first(self, sql: str) -> tuple[Shape, str]:
        self._bounds.check_text(sql)
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
        deadline = self._budget.suspend()
        try:
            self._cursor.execute(sql, prepare_flags=INTERNAL_PREPARE_FLAGS)
        except Exception as error:
            self._fail(error)
        finally:
            sandbox.right = right
            self._budget.committed = False
            self._budget.resume(deadline)

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
            expired=self._budget.expired,
            no_space=isinstance(error, apsw.FullError) and border.is_disk_full(self._folder),
            denial=self._sandbox.denial,
        )
        if self._bounds.are_tight and not preparing and isinstance(error, apsw.TooBigError):
            ours = took_too_long()
        if self._budget.too_much and isinstance(error, apsw.InterruptError):
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

    def _on_commit(self, connection: apsw.Connection, schema: str, frames: int) -> int:
        """SQLite's WAL hook, after each commit."""
        self.wal_frames = frames
        self._budget.committed = False
        return apsw.SQLITE_OK


def aborted(code: str) -> ConflictError:
    """The error for a transaction that SQLite has ended on its own."""
    return ConflictError("SQLite rolled the transaction back; nothing of it was kept.", code=code)
