"""The body of every reply that is not a success."""

from __future__ import annotations

from dosql.wire.body import Body


class ErrorReply(Body):
    """Body of every reply that is not a success."""

    error: str
    code: str
    request_id: str
    retryable: bool = False
    index: int | None = None
    sqlite_code: str | None = None
    offset: int | None = None
