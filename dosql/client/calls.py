"""One request as the client means it, the reply, and what may be done when no reply comes.

Pure values: nothing here touches the network.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

from dosql.clock import Randomness
from dosql.errors import InternalError, InvalidRequestError
from dosql.limits import IDEMPOTENCY_KEY_CHARS_MAX, RESERVED_TENANT_NAMES, TENANT_NAME_PATTERN
from dosql.wire.statements import SqlRequest
from dosql.wire.values import Params, encode_params

T = TypeVar("T")
ReadType = Literal["query", "queryOne"]
StatementType = Literal[ReadType, "run"]

LONG_WORK_S = 600.0
"""`Call.timeout_s_min` of restores, verifications and the like."""
_encoder = msgspec.json.Encoder()
_TENANT_NAME = re.compile(TENANT_NAME_PATTERN, re.ASCII)
_IDEMPOTENCY_KEY = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}", re.ASCII)
_NEVER_WRITES = re.compile(r"\s*(?:select|values|explain|pragma)\b", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Call:
    """A request, with what its sender knows of its effects."""

    method: str
    path: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    writes: bool = False
    """A lost reply leaves it open whether something was written."""
    repeatable: bool = True
    """Sending it twice does no more than sending it once."""
    attempts_max: int | None = None
    """None: as often as the client was told to."""
    timeout_s_min: float = 0.0
    """How long it may take at least, whatever the client's limit: work that grows with the size of
    a database."""
    any_status: bool = False
    """An object answers: its reply is a reply whatever its status. Errors of dosql still raise."""

    @property
    def idempotency_key(self) -> str | None:
        return self.headers.get("Idempotency-Key")


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful reply (2xx), with its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def json_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The same headers for a call with a JSON body."""
    return {**headers, "Content-Type": "application/json"}


def encode(body: object) -> bytes:
    """A body as JSON.

    Raises:
        InvalidRequestError: ``invalid_parameter``: a value that JSON cannot carry.
    """
    try:
        return _encoder.encode(body)
    except UnicodeEncodeError:
        message = "A parameter or the statement holds a lone surrogate, which is not text."
    except (TypeError, OverflowError, ValueError, RecursionError) as exc:
        message = f"A parameter cannot be sent: {exc}."
    raise InvalidRequestError(message, code="invalid_parameter")


def decode(reply: Reply, body_type: type[T]) -> T:
    """The body of a reply.

    Raises:
        InternalError: ``invalid_reply``: not what a dosql server answers.
    """
    try:
        return msgspec.json.decode(reply.body, type=body_type)
    except msgspec.DecodeError as exc:
        raise InternalError(
            "The server's reply is not one of dosql; is the URL right?",
            code="invalid_reply",
            status=reply.status,
            request_id=reply.headers.get("x-request-id"),
        ) from exc


def sql_request(sql: str, params: Params | None) -> SqlRequest:
    """Body of one statement. Raises InvalidRequestError for parameters that cannot be sent."""
    return SqlRequest(sql=sql, params=encode_params(params))


def statement_call(
    base: str,
    statement_type: StatementType,
    sql: str,
    params: Params | None,
    *,
    headers: Mapping[str, str],
    idempotency_key: str,
    rows_as_arrays: bool = False,
) -> Call:
    """One statement outside a transaction; the key goes along if it might write."""
    writes = statement_type == "run" or may_write(sql)
    headers = json_headers(headers)
    if writes:
        headers["Idempotency-Key"] = idempotency_key
    return Call(
        "POST",
        f"{base}/{statement_type}" + ("?rows=array" if rows_as_arrays else ""),
        encode(sql_request(sql, params)),
        headers,
        writes=writes,
    )


def past_statement_call(
    statement_type: ReadType,
    at: str,
    sql: str,
    params: Params | None,
    *,
    headers: Mapping[str, str],
    rows_as_arrays: bool = False,
) -> Call:
    """A statement on the state at a point, which is escaped for a URL; it never writes."""
    return Call(
        "POST",
        f"/{statement_type}?at={at}" + ("&rows=array" if rows_as_arrays else ""),
        encode(sql_request(sql, params)),
        json_headers(headers),
    )


def tenant_path(tenant: str) -> str:
    """Where the administration of a tenant is. Raises InvalidRequestError: no name of one."""
    return f"/admin/tenants/{check_tenant_name(tenant)}"


def may_write(sql: str) -> bool:
    """False only if the first word rules writing out."""
    return _NEVER_WRITES.match(sql) is None


def check_header_token(token: str) -> str:
    """The token, if it can be one; so nothing else ever gets into a header."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidRequestError(
            "A token is printable ASCII without spaces.", code="invalid_token"
        )
    return token


def check_tenant_name(name: str) -> str:
    """The name, if it can be one; so nothing else ever gets into a header or a path."""
    if not _TENANT_NAME.fullmatch(name) or name in RESERVED_TENANT_NAMES:
        raise InvalidRequestError(
            f"{name!r} is not a tenant name: 1 to 63 of a-z, 0-9, _ and -, "
            "not starting with _ or -, and not a reserved word.",
            code="invalid_tenant_name",
        )
    return name


def idempotency_key_or_new(given: str | None, randomness: Randomness) -> str:
    """The caller's key if it is a legal one, else a fresh random UUID."""
    if given is None:
        return str(uuid.UUID(bytes=randomness.token_bytes(16), version=4))
    if not _IDEMPOTENCY_KEY.fullmatch(given):
        raise InvalidRequestError(
            f"An idempotency key is 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII "
            "characters without spaces.",
            code="invalid_idempotency_key",
        )
    return given


class QueryReply(msgspec.Struct):
    """Body of ``/query``."""

    rows: list[dict[str, Any]]


class QueryOneReply(msgspec.Struct):
    """Body of ``/queryOne``."""

    row: dict[str, Any] | None


class RowsReply(msgspec.Struct):
    """Body of ``/query?rows=array``."""

    columns: list[str]
    rows: list[list[Any]]


class TransactionReply(msgspec.Struct):
    """Body of ``/transaction``."""

    results: list[Any]
