"""Every error dosql raises on purpose, grouped by what the caller should do next.

DosqlError
├── RequestError              change the request
│   ├── InvalidRequestError   the request itself is malformed (also: wrong SQL parameters)
│   ├── AuthenticationError   no valid token
│   ├── ForbiddenError        a valid token that may not do this
│   ├── NotFoundError         no such tenant, token, route or transaction
│   ├── ConflictError         it exists already, or the state moved on
│   ├── SqlError              SQLite refused the statement
│   │   └── ConstraintError   a constraint did
│   ├── LimitError            a documented size limit was passed
│   ├── BudgetError           the time or memory budget of a statement was used up
│   └── QuotaError            the database, or the disk, is full
├── RateLimitedError          wait, then repeat
├── UnavailableError          nothing was written; retry with backoff
│   ├── OverloadedError       the object's queue is full, or the wait in it was too long
│   └── ConnectionFailedError the client could not reach the server
├── OutcomeUnknownError       the write may be durable; read, or replay its idempotency key
├── ObjectError               an object's own code raised an exception
├── ObjectResetError          the object was reset under way; what was not durable is undone
├── CorruptError              stored bytes are wrong; an operator must look
└── InternalError             dosql's own bug, seen from the client

The HTTP status of each class stands in ``server/error_responses.py``, one table.
"""

from __future__ import annotations

from typing import ClassVar, Self


class DosqlError(Exception):
    """Base of all errors raised on purpose; any other exception is our bug.

    ``code`` is stable and machine-readable (snake_case); the message is for people and
    may change. ``retryable`` says that the same request, sent again unchanged, may succeed.
    """

    default_code: ClassVar[str] = "error"
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool | None = None,
        index: int | None = None,
        sqlite_code: str | None = None,
        offset: int | None = None,
        retry_after_s: int | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.retryable = self.default_retryable if retryable is None else retryable
        self.index = index
        """Position of the failed operation in a batch, from 0."""
        self.sqlite_code = sqlite_code
        """SQLite's extended result code by name, for example SQLITE_CONSTRAINT_UNIQUE."""
        self.offset = offset
        """Offset of the faulty token in the statement, in bytes of its UTF-8 text."""
        self.retry_after_s = retry_after_s
        """Whole seconds after which a retry is worth it."""
        self.status = status
        """HTTP status; set by the client only."""
        self.request_id = request_id
        """Id of the request as the server logged it; set by the client only."""

    def renewed(self) -> Self:
        """The same error as an object of its own, for one more caller: the tracebacks of several
        tasks must not pile up on one."""
        return type(self)(
            self.message,
            code=self.code,
            retryable=self.retryable,
            retry_after_s=self.retry_after_s,
        )

    @property
    def remote(self) -> bool:
        """The object's own code raised it, not the way to the object."""
        return isinstance(self, ObjectError)

    @property
    def overloaded(self) -> bool:
        """Do not repeat at once: the object has too much to do."""
        return isinstance(self, OverloadedError)

    @property
    def durable_object_reset(self) -> bool:
        """The object was reset; its next call meets a new instance."""
        return isinstance(self, ObjectResetError)


class RequestError(DosqlError):
    """The request must change before it can succeed."""

    default_code = "invalid_request"


class InvalidRequestError(RequestError):
    """The request is malformed: JSON, types, names, parameters."""


class AuthenticationError(RequestError):
    """No token, or one that is not valid (any more)."""

    default_code = "unauthorized"


class ForbiddenError(RequestError):
    """The token is valid and does not allow this; or the SQL gate denied the statement."""

    default_code = "forbidden"


class NotFoundError(RequestError):
    """There is no such thing."""

    default_code = "not_found"


class ConflictError(RequestError):
    """It exists already, or its state has moved on."""

    default_code = "conflict"


class SqlError(RequestError):
    """SQLite refused the statement; nothing of it was applied."""

    default_code = "sql_error"


class ConstraintError(SqlError):
    """A constraint refused the statement; nothing of it was applied."""

    default_code = "constraint_violation"


class LimitError(RequestError):
    """A documented size limit was passed."""

    default_code = "too_large"


class BudgetError(RequestError):
    """The statement used up its time or memory; nothing of it was applied."""

    default_code = "query_timeout"


class QuotaError(RequestError):
    """No room: the database reached its quota, or the disk is full."""

    default_code = "quota_exceeded"


class RateLimitedError(DosqlError):
    """Too many requests; wait ``retry_after_s`` seconds."""

    default_code = "rate_limited"
    default_retryable = True


class UnavailableError(DosqlError):
    """Nothing was written; the same request may be sent again, with backoff."""

    default_code = "unavailable"
    default_retryable = True


class OverloadedError(UnavailableError):
    """The object's queue is full, or a call waited in it for too long."""

    default_code = "object_overloaded"


class ConnectionFailedError(UnavailableError):
    """The client did not reach the server at all."""

    default_code = "connection_failed"


class OutcomeUnknownError(DosqlError):
    """The write may or may not be durable.

    Read before repeating it; with an idempotency key the same request may simply be sent again.
    """

    default_code = "outcome_unknown"


class ObjectError(DosqlError):
    """A method of an object raised an exception that is not one of these.

    The message is ``"ValueError: its text"``; where object and caller share a process, the
    exception itself is the cause. What the object wrote before is kept.
    """

    default_code = "object_error"


class ObjectResetError(DosqlError):
    """The object was reset while the call was under way: by its own code, or by a failure.

    Its memory is gone and what was not durable is undone; the next call meets a new instance.
    """

    default_code = "object_reset"


class CorruptError(DosqlError):
    """Stored bytes are not what was written. Nothing is served from them."""

    default_code = "object_corrupt"


class InternalError(DosqlError):
    """The server failed in a way it did not foresee; its log has the request id."""

    default_code = "internal_error"
