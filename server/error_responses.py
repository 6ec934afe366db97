"""Errors as replies: one table from error class to status, one shape for every body.

Exceptions that are not ours say nothing to the client but their request id; the log has the rest.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

from dosql.errors import (
    AuthenticationError,
    BudgetError,
    ConflictError,
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
    QuotaError,
    RateLimitedError,
    RequestError,
    SqlError,
    UnavailableError,
)
from dosql.wire.failure import ErrorReply
from server.asgi import ClientGone
from server.context import RequestContext

STATUS: dict[type[DosqlError], int] = {
    RequestError: 400,
    InvalidRequestError: 400,
    SqlError: 400,
    AuthenticationError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    ConstraintError: 409,
    LimitError: 413,
    BudgetError: 422,
    RateLimitedError: 429,
    InternalError: 500,
    ObjectError: 500,
    ObjectResetError: 500,
    UnavailableError: 503,
    OutcomeUnknownError: 503,
    CorruptError: 503,
    QuotaError: 507,
}
"""The nearest class in an error's line of ancestors decides."""

STATUS_OF_CODE = {
    "method_not_allowed": 405,
    "upgrade_required": 426,
    "unsupported_media_type": 415,
    "headers_too_large": 431,
}
"""The few codes whose status is narrower than their class says."""

_encoder = msgspec.json.Encoder()
_PATH = re.compile(r" - at `\$(?:\.data)?\.?(.*?)`")


def status_of(error: DosqlError) -> int:
    """The HTTP status of an error."""
    if (status := STATUS_OF_CODE.get(error.code)) is not None:
        return status
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_reply(
    exc: BaseException, context: RequestContext
) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, JSON body and extra headers for any exception; noted in the context."""
    error = exc if isinstance(exc, DosqlError) else from_foreign(exc)
    context.error, context.code = exc, error.code
    if isinstance(exc, ClientGone):  # nobody reads it
        return 499, b"", []
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, AuthenticationError):
        challenge = b'Bearer error="invalid_token"' if error.code == "invalid_token" else b"Bearer"
        headers.append((b"www-authenticate", challenge))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if allow := allowed_methods(exc):
        headers.append((b"allow", allow.encode()))
    reply = ErrorReply(
        error=error.message,
        code=error.code,
        request_id=context.request_id,
        retryable=error.retryable,
        index=error.index,
        sqlite_code=error.sqlite_code,
        offset=error.offset,
    )
    return status_of(error), encode_reply(reply), headers


def encode_reply(reply: ErrorReply) -> bytes:
    """A message may quote the client's own text, which may hold lone surrogates."""
    try:
        return _encoder.encode(reply)
    except UnicodeEncodeError:
        reply.error = reply.error.encode("utf-8", "replace").decode()
        return _encoder.encode(reply)


class MethodNotAllowed(RequestError):
    """The route exists, for other methods."""

    default_code = "method_not_allowed"

    def __init__(self, allow: str) -> None:
        super().__init__("Method not allowed")
        self.allow = allow


def allowed_methods(exc: BaseException) -> str | None:
    """What belongs into the ``Allow`` header of the reply, if anything does."""
    if isinstance(exc, MethodNotAllowed):
        return exc.allow
    headers: object = getattr(exc, "headers", None)
    if isinstance(headers, dict):
        allow: object = headers.get("allow")
        return allow if isinstance(allow, str) else None
    return None


def from_foreign(exc: BaseException) -> DosqlError:
    """An exception of the framework as one of ours; any other as an internal error."""
    status: object = getattr(exc, "status_code", None)
    detail: object = getattr(exc, "detail", None)
    if not isinstance(status, int) or status >= 500:
        return InternalError("Internal server error")
    if status == 404:
        return NotFoundError("Not found")
    if status == 405:
        return RequestError("Method not allowed", code="method_not_allowed")
    if status == 413:
        return LimitError("The request body is too large.", code="body_too_large")
    if status == 400:
        return _invalid_request(exc, detail if isinstance(detail, str) else "")
    return RequestError(HTTPStatus(status).phrase, code="invalid_request")


def _invalid_request(exc: BaseException, detail: str) -> InvalidRequestError:
    """What is wrong, without the framework's wording, which names the URL."""
    cause = exc.__cause__
    while cause is not None and not isinstance(cause, msgspec.DecodeError):
        cause = cause.__cause__
    if cause is not None:
        return invalid_body(cause)
    extra: object = getattr(exc, "extra", None)
    if isinstance(extra, list):
        problems = [_problem(item) for item in extra]
        return InvalidRequestError("; ".join(filter(None, problems)) or "Invalid request")
    return InvalidRequestError(detail if "http" not in detail else "Invalid request")


def _problem(item: object) -> str:
    if not isinstance(item, dict):
        return ""
    key, message = item.get("key"), item.get("message")
    return f"{key}: {message}" if key else str(message)


def _shown_path(match: re.Match[str]) -> str:
    return f" - at `{match[1]}`" if match[1] else ""


def invalid_body(exc: Exception) -> InvalidRequestError:
    """For a body that is not JSON, or not of the right shape."""
    if isinstance(exc, msgspec.ValidationError):
        return InvalidRequestError(f"Invalid request: {_PATH.sub(_shown_path, str(exc))}.")
    if isinstance(exc, RecursionError):
        return InvalidRequestError("The body is nested too deeply.", code="invalid_json")
    return InvalidRequestError("The body is not valid JSON.", code="invalid_json")
