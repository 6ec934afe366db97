"""What an object's ``fetch`` answered, for both clients.

`AsyncResponse` is the `dosql.fetch.Response` that objects make; `SyncResponse` has the same
members without ``await``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

import httpx2
import msgspec

from dosql.errors import ConflictError, InvalidRequestError
from dosql.fetch import Headers, Response

T = TypeVar("T")

AsyncResponse = Response
"""Sends and receives by ``await``, as inside an object."""

_OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding"})
_NO_BODY = frozenset({204, 205, 304})


def headers_of(response: httpx2.Response) -> Headers:
    """The headers of the message, without those of the connection."""
    decoded = response.is_stream_consumed and "content-encoding" in response.headers
    dropped = _OF_THE_CONNECTION | ({"content-encoding", "content-length"} if decoded else set())
    raw = ((name.lower(), value) for name, value in response.headers.raw)
    return Headers.from_raw((name, value) for name, value in raw if name.decode() not in dropped)


def is_short(response: httpx2.Response, bytes_max: int) -> bool:
    """Whether the head says that the body has at most so many bytes."""
    if response.request.method == "HEAD" or response.status_code in _NO_BODY:
        return True
    length = response.headers.get("content-length", "")
    return length.isascii() and length.isdigit() and int(length) <= bytes_max


class SyncResponse:
    """A reply of an object, read without ``await``."""

    def __init__(
        self, body: bytes | Iterable[bytes], status: int = 200, headers: Headers | None = None
    ) -> None:
        self.status = status
        self.headers = Headers() if headers is None else headers
        self._body = body if isinstance(body, bytes) else None
        self._stream: Iterable[bytes] | None = None if isinstance(body, bytes) else body

    @property
    def ok(self) -> bool:
        """A status from 200 to 299."""
        return 200 <= self.status <= 299

    @property
    def is_stream(self) -> bool:
        """The body comes piece by piece and was not collected yet."""
        return self._body is None

    def chunks(self) -> Iterator[bytes]:
        """The body piece by piece, as it comes. A stream can be drawn once.

        Raises:
            ConflictError: ``body_used``: somebody drew the stream already.
        """
        if self._body is not None:
            if self._body:
                yield self._body
            return
        if self._stream is None:
            raise ConflictError("The body was read already.", code="body_used")
        stream, self._stream = self._stream, None
        yield from stream

    def bytes(self) -> bytes:
        """The whole body; a stream is collected, then it may be read again.

        Raises:
            ConflictError: ``body_used``.
        """
        if self._body is None:
            self._body = b"".join(self.chunks())
        return self._body

    def text(self) -> str:
        """The whole body as UTF-8; what is not UTF-8 becomes U+FFFD."""
        return self.bytes().decode("utf-8", "replace")

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    def json(self, type: Any = Any) -> Any:
        """The whole body as JSON; with ``type`` checked against it.

        Raises:
            InvalidRequestError: ``invalid_json``.
        """
        try:
            return msgspec.json.decode(self.bytes(), type=type)
        except msgspec.ValidationError as exc:
            raise InvalidRequestError(f"Invalid body: {exc}.", code="invalid_json") from None
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            raise InvalidRequestError("The body is not valid JSON.", code="invalid_json") from None

    def __repr__(self) -> str:
        return f"<SyncResponse {self.status}>"
