"""Builders of the operations of a batch::

    from dosql.client import operations as op

    client.tenant("acme").batch((op.run("INSERT ..."), op.query("SELECT ...", into=User)))

Each knows the type of its own result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import msgspec

from dosql.client.calls import StatementType
from dosql.client.rows import Row, RunResult, convert_rows, rows_from_json
from dosql.errors import InvalidRequestError
from dosql.wire import statements
from dosql.wire.values import Params, encode_params

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

PlainOperation = (
    tuple[StatementType, str] | tuple[StatementType, str, Params] | tuple[StatementType, str, None]
)
"""The same as a tuple: type, statement, parameters."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[T_co]):
    """One statement of a batch; ``T_co`` is the type of its result."""

    type: StatementType
    sql: str
    params: Params | None
    read_result: Callable[[Any], T_co]


@overload
def query(sql: str, params: Params | None = None) -> Operation[list[Row]]: ...
@overload
def query(sql: str, params: Params | None = None, *, into: type[T]) -> Operation[list[T]]: ...
def query(sql: str, params: Params | None = None, *, into: type[Any] | None = None) -> Any:
    """All rows of a statement."""

    def read(result: list[Row]) -> list[Any]:
        rows = rows_from_json(result)
        return rows if into is None else convert_rows(rows, into)

    return Operation("query", sql, params, read)


@overload
def query_one(sql: str, params: Params | None = None) -> Operation[Row | None]: ...
@overload
def query_one(sql: str, params: Params | None = None, *, into: type[T]) -> Operation[T | None]: ...
def query_one(sql: str, params: Params | None = None, *, into: type[Any] | None = None) -> Any:
    """The first row of a statement, or None."""

    def read(result: Row | None) -> Any:
        if result is None:
            return None
        rows = rows_from_json([result])
        return rows[0] if into is None else convert_rows(rows, into)[0]

    return Operation("queryOne", sql, params, read)


def run(sql: str, params: Params | None = None) -> Operation[RunResult]:
    """A statement that returns no rows."""
    return Operation("run", sql, params, _read_run_result)


def _read_run_result(result: Any) -> RunResult:
    reply = msgspec.convert(result, statements.RunReply)
    return RunResult(reply.changes, reply.last_insert_rowid)


def from_plain(operation: Operation[Any] | PlainOperation) -> Operation[Any]:
    """A tuple as what it stands for.

    Raises:
        InvalidRequestError: ``invalid_request``: neither an `Operation` nor such a tuple.
    """
    if isinstance(operation, Operation):
        return operation
    kind, sql, *rest = operation
    if kind not in _BUILDERS or len(rest) > 1:
        raise InvalidRequestError(
            'An operation is ("query" | "queryOne" | "run", sql, params).', code="invalid_request"
        )
    return _BUILDERS[kind](sql, rest[0] if rest else None)


_BUILDERS: dict[str, Callable[[str, Params | None], Operation[Any]]] = {
    "query": query,
    "queryOne": query_one,
    "run": run,
}


def to_body(operations: Sequence[Operation[Any]]) -> statements.TransactionRequest:
    """The body of ``/transaction``."""
    return statements.TransactionRequest(
        [statements.Operation(op.type, op.sql, encode_params(op.params)) for op in operations]
    )


def read_results(operations: Iterable[Operation[Any]], results: Sequence[Any]) -> list[Any]:
    """Each result by its own operation."""
    return [op.read_result(result) for op, result in zip(operations, results, strict=True)]
