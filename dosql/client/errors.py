"""Every way in which a request can fail, as one of dosql's errors.

Three kinds of failure, and the difference matters to whoever wants to repeat the request:
*refused* (the server did not act on it), *lost* (it may have) and *final* (it said no).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import httpx2
import msgspec

from dosql.errors import (
    AuthenticationError,
    BudgetError,
    ConflictError,
    ConnectionFailedError,
    ConstraintError,
    CorruptError,
    DosqlError,
    ForbiddenError,
    InternalError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    ObjectError,
    ObjectResetError,
    OutcomeUnknownError,
    OverloadedError,
    QuotaError,
    RateLimitedError,
    RequestError,
    SqlError,
    UnavailableError,
)
from dosql.wire.failure import ErrorReply

_CLASS_OF_STATUS: dict[int, type[DosqlError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    405: InvalidRequestError,
    409: ConflictError,
    413: LimitError,
    415: InvalidRequestError,
    422: BudgetError,
    429: RateLimitedError,
    431: LimitError,
    500: InternalError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
    507: QuotaError,
}
_CLASS_OF_503_CODE: dict[str, type[DosqlError]] = {
    "outcome_unknown": OutcomeUnknownError,
    "object_corrupt": CorruptError,
    "replica_corrupt": CorruptError,
    "replica_gap": CorruptError,
    "object_overloaded": OverloadedError,
    "object_busy": OverloadedError,
}
_CLASS_OF_CODE: dict[str, type[DosqlError]] = {
    "object_error": ObjectError,
    "object_reset": ObjectResetError,
}
_GATEWAY_STATUSES = frozenset({502, 503, 504})
_REFUSED_EXCEPTIONS = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)
_UNSENDABLE_EXCEPTIONS = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a successful reply."""

    kind: Literal["refused", "lost", "final"]
    error: DosqlError


def failure_from_reply(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """What a reply other than 2xx says. ``headers`` must look names up in any case."""
    error = error_from_reply(status, headers, body)
    if isinstance(error, OutcomeUnknownError):
        return Failure("lost", error)
    if status == 429 or (status == 503 and error.retryable):
        return Failure("refused", error)
    if status in _GATEWAY_STATUSES and error.code.startswith("http_"):
        return Failure("lost", error)  # a proxy's: nobody knows how far the request came
    return Failure("final", error)


def error_from_reply(status: int, headers: Mapping[str, str], body: bytes) -> DosqlError:
    """The error that a reply other than 2xx carries.

    A body that is not dosql's (a proxy's page, say) gives the code ``http_<status>``.
    """
    retry_after = headers.get("retry-after", "")
    retry_after_s = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    try:
        reply = msgspec.json.decode(body, type=ErrorReply)
    except msgspec.DecodeError:
        return _class_of(status, "")(
            f"The server answered {status} without saying why.",
            code=f"http_{status}",
            retryable=status == 429,
            retry_after_s=retry_after_s,
            status=status,
            request_id=headers.get("x-request-id"),
        )
    error_class = _class_of(status, reply.code)
    if error_class is InvalidRequestError and reply.sqlite_code is not None:
        error_class = SqlError
    return error_class(
        reply.error,
        code=reply.code,
        retryable=reply.retryable,
        index=reply.index,
        sqlite_code=reply.sqlite_code,
        offset=reply.offset,
        retry_after_s=retry_after_s,
        status=status,
        request_id=reply.request_id,
    )


def may_be_error(response: httpx2.Response) -> bool:
    """False if its head already says that this reply is not an error of dosql's."""
    kind = response.headers.get("content-type", "")
    return response.status_code >= 400 and kind.startswith("application/json")


def is_error(response: httpx2.Response, body: bytes) -> bool:
    """Whether a reply is an error of dosql's, and not what an object itself answered.

    Ours names its own request in the body and in the head alike.
    """
    if not may_be_error(response):
        return False
    try:
        reply = msgspec.json.decode(body, type=ErrorReply)
    except msgspec.DecodeError:
        return False
    return reply.request_id == response.headers.get("x-request-id")


def _class_of(status: int, code: str) -> type[DosqlError]:
    if status == 409 and code.startswith("constraint_"):
        return ConstraintError
    if status == 503 and code in _CLASS_OF_503_CODE:
        return _CLASS_OF_503_CODE[code]
    if status >= 500 and code in _CLASS_OF_CODE:
        return _CLASS_OF_CODE[code]
    fallback = InternalError if status >= 500 else RequestError
    return _CLASS_OF_STATUS.get(status, fallback)


def failure_from_exception(exc: Exception, url: str) -> Failure:
    """What a transport's exception says about the request."""
    if isinstance(exc, _UNSENDABLE_EXCEPTIONS):
        error: DosqlError = InvalidRequestError(f"Cannot be sent: {exc}", code="invalid_request")
        return Failure("final", error)
    if isinstance(exc, _REFUSED_EXCEPTIONS):
        return Failure("refused", ConnectionFailedError(f"Cannot reach {url}: {_reason(exc)}."))
    if isinstance(exc, httpx2.TimeoutException):
        return Failure(
            "lost", UnavailableError("The server did not answer in time.", code="timeout")
        )
    return Failure(
        "lost",
        UnavailableError(
            f"The connection broke before the reply came: {_reason(exc)}.", code="connection_lost"
        ),
    )


def _reason(exc: Exception) -> str:
    return str(exc).rstrip(".") or type(exc).__name__


def outcome_unknown(cause: DosqlError, idempotency_key: str | None) -> OutcomeUnknownError:
    """For a write whose reply never came."""
    advice = (
        f"repeat it with the idempotency key {idempotency_key!r}"
        if idempotency_key
        else "look before you repeat it"
    )
    return OutcomeUnknownError(
        f"The write may or may not be durable ({cause.message}); {advice}.",
        status=cause.status,
        request_id=cause.request_id,
    )
