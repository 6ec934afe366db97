"""Sql: SQL storage of an object, ``ctx.storage.sql``.

A cursor holds all of its rows from the start: no statement stays open, so a cursor survives
whatever happens to the database after it, may be kept over an ``await``, and never stands in the
way of a checkpoint or of hibernation. What it shows is the moment of `exec`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar, overload

import msgspec

from dosql.errors import InvalidRequestError
from dosql.limits import SQL_CURSOR_BYTES_MAX, SQL_CURSOR_ROWS_MAX
from dosql.objects.access import Access
from dosql.objects.sql_text import complete_statements
from dosql.sqlite.database import Database
from dosql.sqlite.execution import Outcome
from dosql.sqlite.rows import Row
from dosql.sqlite.statements import Shape
from dosql.wire.values import Params, SqlValue

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

DictRow = dict[str, Any]
"""Column name to value (None, int, float, str or bytes); of columns with the same name the last
one counts."""


class Next(TypedDict, Generic[R]):
    """There is a row."""

    done: Literal[False]
    value: R


class End(TypedDict):
    """There is none any more."""

    done: Literal[True]


class Ingested(NamedTuple):
    """What came of `Sql.ingest`; the counters are those of a `Cursor`."""

    remainder: str
    """What is behind the last complete statement: to be put before what comes next."""
    rows_read: int
    rows_written: int
    statement_count: int


class Cursor(Iterator[R_co]):
    """The rows of one statement, to be taken once."""

    __slots__ = ("_columns", "_into", "_rows", "rows_read", "rows_written")

    def __init__(self, outcome: Outcome, reads: int, writes: int, into: Any) -> None:
        self.rows_read: int = reads
        """Rows returned, or steps through whole tables where those are more; all statements of
        the `exec` together. Rows that an index led to and that were not returned do not count."""
        self.rows_written: int = writes
        """Rows inserted, updated or deleted, by triggers and foreign keys too; not the entries
        of indexes."""
        self._columns = outcome.columns
        self._rows = iter(outcome.rows)
        self._into = into

    @property
    def column_names(self) -> list[str]:
        """Names as SQLite gives them; they may repeat. Empty: the statement returns no rows."""
        return list(self._columns)

    def __next__(self) -> R_co:
        row: R_co = self._shape(next(self._rows))
        return row

    def next(self) -> Next[R_co] | End:
        """``{"done": False, "value": row}``, or ``{"done": True}`` behind the last row."""
        for row in self._rows:
            return {"done": False, "value": self._shape(row)}
        return {"done": True}

    def to_list(self) -> list[R_co]:
        """The rows that are left."""
        return [self._shape(row) for row in self._rows]

    def one(self) -> R_co:
        """The only row.

        Raises:
            InvalidRequestError: ``not_one_row``: none is left, or more than one.
        """
        rows = list(self._rows)
        if len(rows) != 1:
            found = "got multiple results" if rows else "got no results"
            raise InvalidRequestError(
                f"Expected exactly one result from SQL query, but {found}.", code="not_one_row"
            )
        row: R_co = self._shape(rows[0])
        return row

    def raw(self) -> Iterator[tuple[Any, ...]]:
        """The rows that are left as tuples, one value for each of `column_names`. It takes them
        from the cursor: both are at the same row."""
        return self._rows

    def _shape(self, row: Row) -> Any:
        record = dict(zip(self._columns, row, strict=True))
        if self._into is None:
            return record
        try:
            return msgspec.convert(record, self._into, strict=False)
        except (msgspec.ValidationError, TypeError) as error:
            raise InvalidRequestError(
                f"A row is not of the type asked for: {error}.", code="type_mismatch"
            ) from error


class Sql:
    """``ctx.storage.sql``. One per life of the object."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @overload
    def exec(self, query: str, *bindings: SqlValue | Mapping[str, SqlValue]) -> Cursor[DictRow]: ...
    @overload
    def exec(
        self, query: str, *bindings: SqlValue | Mapping[str, SqlValue], into: type[T]
    ) -> Cursor[T]: ...
    def exec(
        self, query: str, *bindings: SqlValue | Mapping[str, SqlValue], into: Any = None
    ) -> Cursor[Any]:
        """Run SQL now and give the rows of its last statement.

        ``bindings`` are its parameters, one by one or as one mapping by name. Several statements
        are separated by semicolons: only the last may have parameters, the rows of the others
        are dropped, and if one fails none has had an effect. With ``into`` each row is made a
        dataclass, a msgspec.Struct...

        Raises:
            InvalidRequestError: ``sql_empty``; ``invalid_parameter``: wrong in number or type.
            SqlError: SQLite refused it, or a constraint did; nothing of it was applied.
            ForbiddenError: not in an object: transactions, files, reserved names.
            LimitError: ``result_too_large``: more than SQL_CURSOR_ROWS_MAX rows or
                SQL_CURSOR_BYTES_MAX.
            BudgetError: it ran past the deadline.
        """
        params = _params(bindings)
        db = self._access.read()
        shape, rest = db.split(query)
        if rest:
            self._access.write()
            return _run_all(db, query, params, into)
        if not shape.read_only:
            self._access.write()
        return _cursor(_execute(db, shape, params), into)

    @overload
    async def exec_on_thread(
        self, query: str, *bindings: SqlValue | Mapping[str, SqlValue]
    ) -> Cursor[DictRow]: ...
    @overload
    async def exec_on_thread(
        self, query: str, *bindings: SqlValue | Mapping[str, SqlValue], into: type[T]
    ) -> Cursor[T]: ...
    async def exec_on_thread(
        self, query: str, *bindings: SqlValue | Mapping[str, SqlValue], into: Any = None
    ) -> Cursor[Any]:
        """As `exec`, on a worker thread, for what takes long: other objects go on meanwhile. No
        other event of this object runs, and what it writes is a transaction of its own.

        Raises: as `exec`.
        """
        params = _params(bindings)
        return await self._access.on_thread(lambda db: _run_all(db, query, params, into))

    def ingest(self, text: str) -> Ingested:
        """Run the statements of a text that comes in pieces, a dump for example: all that are
        complete, their semicolons included. Their rows are dropped; if one fails, none of this
        piece has had an effect.

        Raises: as `exec`; ``invalid_parameter`` for any parameter.
        """
        statements, remainder = complete_statements(text)
        reads = writes = 0
        if statements:
            db = self._access.write()
            with db.savepoint():
                for statement in statements:
                    shape, _ = db.split(statement)
                    if shape.parameters:
                        raise InvalidRequestError(
                            "A statement of ingest() may not have parameters.",
                            code="invalid_parameter",
                        )
                    outcome = _execute(db, shape, ())
                    reads += outcome.rows_read
                    writes += outcome.rows_written
        return Ingested(remainder, reads, writes, len(statements))

    @property
    def database_size(self) -> int:
        """Bytes of the database in use, everything in it included: pages times their size,
        without those that are free again."""
        return self._access.read().used_bytes


def _run_all(db: Database, query: str, params: Params, into: Any) -> Cursor[Any]:
    """All statements of the text, or none; the parameters are for the last."""
    reads = writes = 0
    with db.savepoint():
        shape, rest = db.split(query)
        while rest:
            if shape.parameters:
                raise InvalidRequestError(
                    "Of several statements only the last may have parameters.",
                    code="invalid_parameter",
                )
            outcome = _execute(db, shape, ())
            reads += outcome.rows_read
            writes += outcome.rows_written
            shape, rest = db.split(rest)
        return _cursor(_execute(db, shape, params), into, reads, writes)


def _execute(db: Database, shape: Shape, params: Params) -> Outcome:
    return db.execute(shape, params, rows_max=SQL_CURSOR_ROWS_MAX, bytes_max=SQL_CURSOR_BYTES_MAX)


def _cursor(outcome: Outcome, into: Any, reads: int = 0, writes: int = 0) -> Cursor[Any]:
    return Cursor(outcome, reads + outcome.rows_read, writes + outcome.rows_written, into)


def _params(bindings: tuple[SqlValue | Mapping[str, SqlValue], ...]) -> Params:
    if len(bindings) == 1 and isinstance(bindings[0], Mapping):
        return bindings[0]
    return bindings  # type: ignore[return-value]
