"""How a statement runs that is no plain read: under a guard, leniently, or counted."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import Any

import apsw
import msgspec

from dosql.errors import ForbiddenError, InvalidRequestError
from dosql.limits import RESERVED_TABLE_PREFIX
from dosql.sqlite.rows import Row, Rows, RunResult, decode, draw, lenient
from dosql.sqlite.schema_checks import check_names, check_schema_size, reserved_names
from dosql.sqlite.statements import UNBOUND, Shape
from dosql.sqlite.transactions import Savepoint, Transactions
from dosql.wire.values import Params

_GUARD = f"{RESERVED_TABLE_PREFIX}guard"
_STEPS = "SQLITE_STMTSTATUS_FULLSCAN_STEP"


class Outcome(msgspec.Struct, frozen=True):
    """What a statement did, of whatever kind it is."""

    columns: tuple[str, ...]
    """Names as SQLite gives them; empty: it returns no rows."""
    rows: list[Row]
    rows_read: int
    """Rows returned, or steps through whole tables where those are more. Rows that an index led
    to, and that were not returned, are not counted: SQLite does not say."""
    rows_written: int
    """Rows inserted, updated or deleted, by triggers and foreign keys too."""


class Execution(Transactions):
    """What `Database` is made of."""

    _scan_steps = 0
    """What the trace of the running statement counted."""

    def _outcome(self, shape: Shape, params: Params) -> Outcome:
        """Run any statement; the limits are those of the connection at the moment."""
        counted = self._scans(shape) if shape.scans is None else shape.scans
        if shape.plain_read and not counted:
            rows = self._rows_of(shape, params)
            return Outcome(shape.columns, rows, len(rows), 0)
        connection = self._connection
        before, last = connection.total_changes(), connection.last_insert_rowid()
        self._scan_steps = 0
        if counted:
            connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._on_profile)
        try:
            rows = self._rows_of(shape, params)
        finally:
            if counted:
                connection.trace_v2(0, None)
        if shape.schema:  # full-text tables insert rows of their own
            connection.set_last_insert_rowid(last)
        written = connection.total_changes() - before
        return Outcome(shape.columns, rows, max(len(rows), self._scan_steps), written)

    def _rows_of(self, shape: Shape, params: Params) -> list[Row]:
        if not shape.plain_read and not shape.plain_write:
            return self._guarded(shape, params, keep=bool(shape.columns))
        self._bounds.bound(shape)
        before = self._connection.total_changes()
        try:
            found = self._cursor.execute(shape.text, params)
            return draw(found, self._rows_max, self._bytes_max) if shape.plain_read else []
        except Exception as error:
            self._drop_cursor()
            if isinstance(error, UnicodeDecodeError):
                return self._query_leniently(shape, params, first=False).rows
            self._fail_write(error, shape.text, before)
            return []
        finally:
            self._budget.committed = False

    def _fail_write(self, error: Exception, sql: str, before: int) -> None:
        """`_fail`, unless SQLite interrupted the write in a transaction behind its last step: what
        is interrupted earlier takes the transaction with it. ``before``: `total_changes`."""
        connection = self._connection
        done = connection.in_transaction and connection.total_changes() != before
        if not (done and isinstance(error, apsw.InterruptError)):
            self._fail(error, sql)

    def _scans(self, shape: Shape) -> bool:
        """Whether the statement's plan steps through a whole table: only then is it traced,
        which costs some microseconds."""
        program: list[Any] = []
        if not shape.schema:
            # An EXPLAIN already, or of the greatest length; or with a constant that is not text.
            with suppress(apsw.Error, UnicodeDecodeError):
                program = self._connection.execute(
                    f"EXPLAIN {shape.text}", UNBOUND, can_cache=False
                ).fetchall()
        scans = any(
            opcode in ("Next", "Prev") and p5 == apsw.SQLITE_STMTSTATUS_FULLSCAN_STEP
            for _, opcode, *_, p5, _ in program
        )
        msgspec.structs.force_setattr(shape, "scans", scans)
        return scans

    def _on_profile(self, event: dict[str, Any]) -> None:
        """SQLite's trace, when a statement has ended."""
        self._scan_steps += event["stmt_status"][_STEPS]

    def _query_guarded(self, shape: Shape, params: Params, read_only: bool) -> Rows:
        check_returns_rows(shape)
        if read_only and not shape.read_only:
            raise not_read_only()
        if self._capture is not None and not shape.read_only:
            with Captured(self, shape):
                return Rows(shape.columns, self._guarded(shape, params, keep=True))
        return Rows(shape.columns, self._guarded(shape, params, keep=True))

    def _run_captured(self, shape: Shape, params: Params) -> RunResult:
        """`Database.run` of what may write, while changes are captured."""
        connection = self._connection
        with Captured(self, shape):
            if not shape.plain_write:
                return self._run_guarded(shape, params)
            before = connection.total_changes()
            self._rows_of(shape, params)
            changed = connection.total_changes() != before
            return RunResult(connection.changes() if changed else 0, connection.last_insert_rowid())

    def _run_guarded(self, shape: Shape, params: Params) -> RunResult:
        if shape.read_only and shape.columns:
            raise InvalidRequestError(
                "The statement only reads; use /query.", code="statement_is_read_only"
            )
        connection = self._connection
        before, last = connection.total_changes(), connection.last_insert_rowid()
        self._guarded(shape, params, keep=False)
        if shape.schema:  # full-text tables insert rows of their own
            connection.set_last_insert_rowid(last)
            return RunResult(0, last)
        changed = connection.total_changes() != before
        return RunResult(connection.changes() if changed else 0, connection.last_insert_rowid())

    def _guarded(self, shape: Shape, params: Params, *, keep: bool) -> list[Row]:
        """Run a statement that could leave something behind when it fails half-way: rows are
        drawn after all writes, and new names are seen only after the change."""
        self._bounds.bound(shape)
        names = reserved_names(self) if shape.check_after else None
        self._control(f"SAVEPOINT {_GUARD}")
        try:
            if shape.schema:
                self._touch_schema()
            self._bounds.bound(shape)
            self._cursor.execute(shape.text, params)
            if keep:
                rows = draw(self._cursor, self._rows_max, self._bytes_max)
            else:
                rows = []
                for _ in self._cursor:
                    pass
            if names is not None:
                check_names(self, self._sandbox, names)
            if shape.creates:
                check_schema_size(self)
            self._control(f"RELEASE {_GUARD}")
        except BaseException as error:
            self._drop_cursor()
            try:
                if isinstance(error, Exception):
                    self._fail(error, shape.text)
                raise
            finally:
                self._roll_back_to(_GUARD)
        return rows

    def _query_leniently(self, shape: Shape, params: Params, *, first: bool) -> Rows:
        """Some text is not UTF-8: fetch text as blobs and decode what can be decoded."""
        sql = lenient(shape.text, len(shape.columns))
        cursor = self._connection.cursor()
        try:
            found = decode(cursor.execute(sql, params), self._encoding)
            if first:
                found = islice(found, 1)
            return Rows(shape.columns, draw(found, self._rows_max, self._bytes_max))
        except apsw.SQLError as error:
            # Not a SELECT, or too large with the wrapping: the first error says more.
            self._fail(UnicodeDecodeError("utf-8", b"", 0, 0, str(error)), shape.text)
        except Exception as error:
            self._fail(error, shape.text)
        finally:
            cursor.close(True)


class Captured(Savepoint):
    """The savepoint of one statement, or one transaction, in which its changes are captured."""

    __slots__ = ("_shape",)

    def __init__(self, connection: Transactions, shape: Shape) -> None:
        super().__init__(connection)
        self._shape = shape

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        capture = self._connection.capture
        if error is None and capture is not None:
            try:
                capture.settle(self._shape.text if self._shape.schema else None)
            except BaseException as failure:
                super().__exit__(type(failure), failure, None)
                raise
        super().__exit__(kind, error, traceback)


def check_returns_rows(shape: Shape) -> None:
    """Raises InvalidRequestError ``statement_returns_no_rows``."""
    if not shape.columns:
        raise InvalidRequestError(
            "The statement returns no rows; use /run.", code="statement_returns_no_rows"
        )


def not_read_only() -> ForbiddenError:
    """The refusal of a write where only reading is allowed."""
    return ForbiddenError("The statement writes, and only reading is allowed.", code="read_only")
