"""From the body of an SQL request to the work that runs it and encodes the reply.

The same for the four SQL routes and for statements in an interactive transaction.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from itertools import starmap
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from dosql.errors import DosqlError, ForbiddenError, InvalidRequestError, LimitError
from dosql.limits import IDEMPOTENCY_KEY_CHARS_MAX, TRANSACTION_OPERATIONS_MAX
from dosql.objects.idempotency import Idempotency, Work
from dosql.sqlite.database import Database, Rows, RunResult
from dosql.wire.statements import RunReply, SqlRequest, TransactionRequest
from dosql.wire.values import Params, decode_params, encode_rows
from server.error_responses import invalid_body

Kind = Literal["query", "queryOne", "run", "transaction"]
StatementKind = Literal["query", "queryOne", "run"]
T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_sql_request = msgspec.json.Decoder(SqlRequest)
_transaction_request = msgspec.json.Decoder(TransactionRequest)
_STRUCTS_FROM_ROWS = 100
"""From so many rows on, a type of their own pays: making it takes about 200 µs, once."""
_ROW_TYPES_MAX = 256
"""Sets of columns whose types are kept: about 2 KB each."""
_KEY = re.compile(rb"[\x21-\x7e]{1,%d}" % IDEMPOTENCY_KEY_CHARS_MAX)


class ReplyFormat(msgspec.Struct, frozen=True):
    """How the client wants its rows."""

    arrays: bool = False
    """``?rows=array``: columns and rows apart, which keeps columns of the same name."""
    int_as_text: bool = False
    """``?int=string``: integers beyond ±2**53 as text."""
    at: str | None = None
    """``?at=``: the state to be read, RFC 3339 or a bookmark; None: the present."""


PLAIN = ReplyFormat()


@lru_cache(64)
def reply_format(query_string: bytes, may_travel: bool = False) -> ReplyFormat:
    """From the URL's query. ``may_travel``: ``at`` is possible.

    Raises:
        InvalidRequestError: a parameter that does not exist; ignoring it could answer something
            else than was asked.
    """
    if not query_string:
        return PLAIN
    arrays = int_as_text = False
    at: str | None = None
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        match name, value:
            case "rows", "array" | "object":
                arrays = value == "array"
            case "int", "string" | "number":
                int_as_text = value == "string"
            case "at", _ if may_travel:
                at = value
            case "at", _:
                raise InvalidRequestError("Only /query and /queryOne can read the past.")
            case _:
                raise InvalidRequestError(
                    "Unknown query parameter; there are rows=array, int=string and at=."
                )
    return ReplyFormat(arrays, int_as_text, at)


def idempotency(
    key: bytes | None, kind: str, query_string: bytes, body: bytes
) -> Idempotency | None:
    """From the Idempotency-Key header, tied to this very request.

    Raises:
        InvalidRequestError: ``invalid_idempotency_key``.
    """
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidRequestError(
            f"An idempotency key has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters "
            "without spaces.",
            code="invalid_idempotency_key",
        )
    request = b"\0".join((kind.encode(), query_string, body))
    return Idempotency(key.decode(), hashlib.sha256(request).digest())


def decode_sql_request(body: bytes) -> SqlRequest:
    """Raises InvalidRequestError: ``invalid_json``, or ``invalid_request`` for a wrong shape."""
    return _decode(_sql_request, body)


def decode_transaction_request(body: bytes) -> TransactionRequest:
    """Raises InvalidRequestError as `decode_sql_request`; LimitError ``too_many_operations``."""
    request = _decode(_transaction_request, body)
    if len(request.operations) > TRANSACTION_OPERATIONS_MAX:
        raise LimitError(
            f"A transaction has at most {TRANSACTION_OPERATIONS_MAX:,} operations.",
            code="too_many_operations",
        )
    return request


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError, OverflowError) as exc:
        raise invalid_body(exc) from None


# --- work ------------------------------------------------------------------------------------


def statement_work(kind: StatementKind, body: bytes, form: ReplyFormat, *, read_only: bool) -> Work:
    """One statement. ``read_only``: refuse, before it runs, whatever would write."""
    request = decode_sql_request(body)
    sql, params = request.sql, decode_params(request.params)
    if kind == "query":
        if form is PLAIN:
            return lambda db: _encode(
                {"rows": _objects(db.query(sql, params, read_only=read_only))}
            )
        return lambda db: _encode(_table(db.query(sql, params, read_only=read_only), form))
    if kind == "queryOne":
        return lambda db: _encode(_row(db.query_one(sql, params, read_only=read_only), form))
    if read_only:
        raise writes_refused()
    return lambda db: _encode(_ran(db.run(sql, params)))


class _Operation(msgspec.Struct, frozen=True):
    type: StatementKind
    sql: str
    params: Params


def transaction_work(body: bytes, form: ReplyFormat, *, read_only: bool) -> Work:
    """All operations of a transaction. Errors carry the operation's index."""
    operations: list[_Operation] = []
    for index, operation in enumerate(decode_transaction_request(body).operations):
        if read_only and operation.type == "run":
            raise writes_refused(index)
        try:
            params = decode_params(operation.params)
        except DosqlError as error:
            error.index = index
            raise
        operations.append(_Operation(operation.type, operation.sql, params))

    def work(db: Database) -> bytes:
        results = db.batch(operations, read_only=read_only)
        return _encode(
            {
                "results": [
                    _result(operation.type, result, form)
                    for operation, result in zip(operations, results, strict=True)
                ]
            }
        )

    return work


def writes_refused(index: int | None = None) -> ForbiddenError:
    """For a read-only token that asks for a write."""
    return ForbiddenError("This token may only read.", code="read_only", index=index)


# --- replies ---------------------------------------------------------------------------------


@lru_cache(_ROW_TYPES_MAX)
def _row_type(columns: tuple[str, ...]) -> Callable[..., object] | None:
    """A type that encodes to an object with these keys; None if there can be none."""
    if len(set(columns)) != len(columns):
        return None
    fields = [f"c{number}" for number in range(len(columns))]
    try:
        return msgspec.defstruct(
            "Row", fields, rename=dict(zip(fields, columns, strict=True)), gc=False
        )
    except ValueError:  # a name with a quote or a control character
        return None


def _objects(rows: Rows, *, int_as_text: bool = False) -> list[Any]:
    """Rows as what encodes to objects. Many of them as structs: no dict per row, and the keys
    are encoded once."""
    columns = rows.columns
    values = encode_rows(rows.rows, int_as_text=int_as_text)
    if len(values) >= _STRUCTS_FROM_ROWS:
        make = _row_type(columns)
        if make is not None:
            return list(starmap(make, values))
    return [dict(zip(columns, row, strict=True)) for row in values]


def _table(rows: Rows, form: ReplyFormat) -> dict[str, Any]:
    if not form.arrays:
        return {"rows": _objects(rows, int_as_text=form.int_as_text)}
    return {
        "columns": rows.columns,
        "rows": encode_rows(rows.rows, int_as_text=form.int_as_text),
    }


def _row(rows: Rows, form: ReplyFormat) -> dict[str, Any]:
    if not form.arrays:
        found = _objects(rows, int_as_text=form.int_as_text)
        return {"row": found[0] if found else None}
    values = encode_rows(rows.rows, int_as_text=form.int_as_text)
    return {"columns": rows.columns, "row": values[0] if values else None}


def _ran(result: RunResult) -> RunReply:
    return RunReply(result.changes, result.last_insert_rowid)


def _result(kind: StatementKind, result: Rows | RunResult, form: ReplyFormat) -> object:
    """An entry of ``results``: what the single route has inside its object."""
    if isinstance(result, RunResult):
        return _ran(result)
    if kind == "query":
        table = _table(result, form)
        return table if form.arrays else table["rows"]
    row = _row(result, form)
    return row if form.arrays else row["row"]
