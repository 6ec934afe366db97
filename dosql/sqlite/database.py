"""Database: one SQLite file, one connection, synchronous calls.

Invariants:

- A call applies its statement whole, or not at all, whatever the error.
- A transaction that SQLite ended on its own refuses everything but its rollback: nothing slips
  out of it as a commit of its own.
- Broken is final: after an I/O error or a damaged page every call raises the same error.
- The file is durable only by what reads its -wal: SQLite itself never syncs here.

Not thread-safe: one call at a time, from whichever thread; only `Database.interrupt` may be
called meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import apsw

from dosql.errors import BudgetError, ConflictError, DosqlError, OverloadedError, SqlError
from dosql.sqlite.connection import DatabaseLimits
from dosql.sqlite.execution import Captured, Execution, Outcome, check_returns_rows, not_read_only
from dosql.sqlite.rows import Row, Rows, RunResult, draw, size_of
from dosql.sqlite.script import Script
from dosql.sqlite.statements import Shape, Statement
from dosql.wire.values import Params

__all__ = ["Database", "DatabaseLimits", "OperationLike", "Row", "Rows", "RunResult", "Statement"]


class OperationLike(Protocol):
    """One step of a batch, its parameters as SQLite values."""

    @property
    def type(self) -> Literal["query", "queryOne", "run"]: ...
    @property
    def sql(self) -> str: ...
    @property
    def params(self) -> Any:
        """`Params`, or None."""


class Database(Execution):
    """What tenants may do with their file."""

    def query(self, sql: str, params: Params = (), *, read_only: bool = False) -> Rows:
        """Run one statement that returns rows, and return all of them.

        Raises:
            InvalidRequestError: not one statement, it returns no rows, or wrong parameters.
            SqlError: SQLite refused it, or a constraint did.
            ForbiddenError: the sandbox refused it; or it writes and ``read_only`` is set.
            LimitError: more rows, or more bytes, than one answer may have.
            BudgetError: it ran past the deadline.
            QuotaError: the database or the disk is full.
            ConflictError: the transaction around it is gone.
        """
        if self._refusal is not None:
            self._refuse()
        shape = self._known.get(sql) or self._inspect(sql)
        if not shape.plain_read:
            return self._query_guarded(shape, params, read_only)
        if shape is not self._bounds.bounded:
            self._bounds.bound(shape)
        try:
            return Rows(
                shape.columns,
                draw(self._cursor.execute(shape.text, params), self._rows_max, self._bytes_max),
            )
        except Exception as error:
            self._drop_cursor()
            if isinstance(error, UnicodeDecodeError):
                return self._query_leniently(shape, params, first=False)
            self._fail(error, sql)

    def query_one(self, sql: str, params: Params = (), *, read_only: bool = False) -> Rows:
        """As `query`, but only the first row is computed: 0 or 1 rows. A statement that writes
        still writes all of its rows."""
        if self._refusal is not None:
            self._refuse()
        shape = self._known.get(sql) or self._inspect(sql)
        if not shape.plain_read:
            rows = self._query_guarded(shape, params, read_only)
            return Rows(rows.columns, rows.rows[:1])
        if shape is not self._bounds.bounded:
            self._bounds.bound(shape)
        cursor = self._connection.cursor()  # its own: closing it ends the read at once
        try:
            row = cursor.execute(shape.text, params).fetchone()
            cursor.close(True)
            return Rows(
                shape.columns,
                [] if row is None else draw((row,), self._rows_max, self._bytes_max),
            )
        except Exception as error:
            cursor.close(True)
            if isinstance(error, UnicodeDecodeError):
                return self._query_leniently(shape, params, first=True)
            self._fail(error, sql)

    def run(self, sql: str, params: Params = ()) -> RunResult:
        """Run one statement that writes, or changes the schema; rows it returns are dropped.

        Outside a transaction the row id in the result is 0 unless this statement inserted; in
        one, unless any statement since its begin did.

        Raises: as `query`.
        """
        if self._refusal is not None:
            self._refuse()
        shape = self._known.get(sql) or self._inspect(sql)
        connection = self._connection
        if not connection.in_transaction:
            connection.set_last_insert_rowid(0)
        if self._capture is not None and not shape.read_only:
            return self._run_captured(shape, params)
        if not shape.plain_write:
            return self._run_guarded(shape, params)
        if shape is not self._bounds.bounded:
            self._bounds.bound(shape)
        before = connection.total_changes()
        try:
            self._cursor.execute(shape.text, params)
        except Exception as error:
            self._drop_cursor()
            self._fail_write(error, sql, before)
        finally:
            self._budget.committed = False
        # A write that SQLite does not count, ANALYZE say, leaves changes() as it was.
        changed = connection.total_changes() != before
        return RunResult(connection.changes() if changed else 0, connection.last_insert_rowid())

    def prepare(self, sql: str) -> Statement:
        """Check one statement now and keep it for many calls; nothing of it runs yet.

        Raises: as `query`.
        """
        if self._refusal is not None:
            self._refuse()
        return Statement(self, sql, self._inspect(sql).columns)

    def iterate(self, sql: str, params: Params = ()) -> Iterator[Row]:
        """The rows of a reading statement one by one, without a limit on their number.

        The database cannot be checkpointed while the iterator is open: exhaust or close it.
        """
        if self._refusal is not None:
            self._refuse()
        shape = self._known.get(sql) or self._inspect(sql)
        check_returns_rows(shape)
        if not shape.read_only:
            raise not_read_only()
        self._bounds.bound(shape)
        cursor = self._connection.cursor()
        try:
            yield from cursor.execute(shape.text, params)
        except Exception as error:
            self._fail(error, sql)
        finally:
            cursor.close(True)

    def batch(
        self, operations: Sequence[OperationLike], *, read_only: bool = False
    ) -> list[Rows | RunResult]:
        """Run all operations in one transaction, or none of them; inside a transaction, as a
        part of it that is undone alone.

        The limits on rows and bytes hold for the whole answer.

        Raises: as `query`; the error's ``index`` is the operation's, None if it was the commit.
        """
        nested = self._open()
        results: list[Rows | RunResult] = []
        limits = self._rows_max, self._bytes_max
        try:
            for operation in operations:
                results.append(self._operate(operation, read_only))
            self._close(nested=nested)
        except BaseException as error:
            if isinstance(error, DosqlError) and len(results) < len(operations):
                error.index = len(results)
            self._undo(nested=nested)
            raise
        finally:
            self._rows_max, self._bytes_max = limits
        return results

    def exec(self, script: str) -> None:
        """Run a script of the operator's: all of its statements, or none.

        It may do what a tenant may, and set ``user_version`` and the like; it must leave
        BEGIN and COMMIT out.
        """
        Script(self, script).run()

    def split(self, sql: str) -> tuple[Shape, str]:
        """What the first statement is, for `execute`, and the text behind it, empty if that is
        blank. Nothing runs yet, so what follows may need a table that the first one makes.

        Raises: as `query`.
        """
        if self._refusal is not None:
            self._refuse()
        shape = self._known.get(sql)
        return (shape, "") if shape is not None else self._inspect_first(sql)

    def execute(
        self, shape: Shape, params: Params = (), *, rows_max: int, bytes_max: int
    ) -> Outcome:
        """Run a statement of any kind and draw all of its rows; the limits are on those.

        Raises: as `query`.
        """
        if self._refusal is not None:
            self._refuse()
        limits = self._rows_max, self._bytes_max
        self._rows_max, self._bytes_max = rows_max, bytes_max
        try:
            if self._capture is not None and not shape.read_only:
                with Captured(self, shape):
                    return self._outcome(shape, params)
            return self._outcome(shape, params)
        finally:
            self._rows_max, self._bytes_max = limits

    def wipe(self) -> None:
        """Leave an empty database: all tables, the server's too, are gone in one commit. It takes
        the same time for any size.

        Raises:
            ConflictError: ``transaction_open``: a transaction cannot undo this.
            OverloadedError: ``object_busy``: an iterator is open; the iterator ends.
        """
        if self._refusal is not None:
            self._refuse()
        connection = self._connection
        if connection.in_transaction:
            raise ConflictError("A transaction is open.", code="transaction_open")
        if self._capture is not None:
            self.install(None)
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)  # VACUUM attaches a file of its own
        connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 1)
        try:
            self._control("VACUUM")
        except SqlError as error:
            raise OverloadedError(
                "A statement that is still being read stands in the way.", code="object_busy"
            ) from error
        finally:
            connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, 0)
            connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
            self._undone += 1
            self._known.clear()
        self._encoding = str(self.internal_query("PRAGMA encoding")[0][0])
        with self.transaction():
            pass  # VACUUM calls no commit hook; who counts commits by it is to see this one

    # --- inside --------------------------------------------------------------------------

    def _operate(self, operation: OperationLike, read_only: bool) -> Rows | RunResult:
        if self._budget.is_spent():
            raise BudgetError("The batch took longer than allowed.")
        params: Params = () if operation.params is None else operation.params
        if operation.type == "run":
            if read_only:
                raise not_read_only()
            return self.run(operation.sql, params)
        call = self.query if operation.type == "query" else self.query_one
        found = call(operation.sql, params, read_only=read_only)
        self._rows_max -= len(found.rows)
        self._bytes_max -= size_of(found.rows)
        return found
