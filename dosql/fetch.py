"""Request, Response, Headers: HTTP as an object's ``fetch`` sees it, whoever carries it.

The same values go through the in-process stub, the client's stub and the server's routes. A
request's body is complete before a handler begins: reading it never suspends, so it never lets
another event of the object in between. A response's body may be a stream.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, TypeVar, overload
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from dosql.errors import ConflictError, InvalidRequestError
from dosql.headers import TOKEN, Headers, HeadersInit

__all__ = ["Headers", "Request", "Response"]

T = TypeVar("T")
Body = str | bytes | None
StreamBody = AsyncIterable[bytes | str]

ORIGIN = "http://object"
"""Of a request that was made from a path alone."""
_URL = re.compile(r"(?P<origin>(?:https?|wss?)://[^/?#\s]+)(?P<rest>[/?#].*)?", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\U0010ffff]")
_PATH_SAFE = "/:@!$&'()*+,;=~"
_STATUS_SWITCHING = 101
_NO_BODY = frozenset({101, 204, 205, 304})
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Request:
    """What is asked of an object.

    ``url`` is absolute, or a path, which stands for ``http://object`` + path.

    Raises:
        InvalidRequestError: ``invalid_url``, ``invalid_method``, ``invalid_header``.
    """

    __slots__ = ("_body", "_query", "headers", "method", "url")

    def __init__(
        self, url: str, method: str = "GET", headers: HeadersInit = None, body: Body = None
    ) -> None:
        self.url: str = _absolute(url)
        """With what the client percent-encoded still encoded."""
        if not TOKEN.fullmatch(method):
            raise InvalidRequestError(f"{method!r} is not an HTTP method.", code="invalid_method")
        self.method: str = method.upper()
        self.headers: Headers = Headers(headers)
        self._body: bytes = body.encode() if isinstance(body, str) else body or b""
        self._query: dict[str, list[str]] | None = None

    @property
    def path(self) -> str:
        """The path of the URL, percent-decoded; it begins with a slash."""
        return unquote(urlsplit(self.url).path) or "/"

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the URL; of several with one name, the first."""
        return {name: values[0] for name, values in self.query_all.items()}

    @property
    def query_all(self) -> dict[str, list[str]]:
        """The parameters of the URL, all values of each."""
        if self._query is None:
            self._query = {}
            for name, value in parse_qsl(urlsplit(self.url).query, keep_blank_values=True):
                self._query.setdefault(name, []).append(value)
        return self._query

    @property
    def is_websocket_upgrade(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"

    async def bytes(self) -> bytes:
        """The body; it may be read any number of times."""
        return self._body

    async def text(self) -> str:
        """The body as UTF-8; what is not UTF-8 becomes U+FFFD."""
        return self._body.decode("utf-8", "replace")

    @overload
    async def json(self) -> Any: ...
    @overload
    async def json(self, type: type[T]) -> T: ...
    async def json(self, type: Any = None) -> Any:
        """The body as JSON; with ``type`` (dataclass, Struct, list[int]...) checked against it.

        Raises:
            InvalidRequestError: ``invalid_json``: not JSON, or not of that type.
        """
        return _from_json(self._body, type)

    def replace(
        self,
        *,
        url: str | None = None,
        path: str | None = None,
        method: str | None = None,
        headers: HeadersInit = None,
        body: Body = None,
    ) -> Request:
        """A copy with these parts changed: to forward a request under another path.

        ``path`` (not encoded) leaves the query as it is; a ``url`` that is a path leaves the
        origin as it is; ``headers`` are all of the new ones.
        """
        new_url = self.url if url is None else url
        if new_url.startswith("/"):
            new_url = _origin(self.url) + new_url
        if path is not None:
            query = urlsplit(new_url).query
            slash = "" if path.startswith("/") else "/"
            new_url = _origin(new_url) + slash + quote(path, safe=_PATH_SAFE)
            new_url += f"?{query}" if query else ""
        return Request(
            new_url,
            self.method if method is None else method,
            self.headers if headers is None else headers,
            self._body if body is None else body,
        )

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"


class Response:
    """What an object answers.

    Text without a Content-Type is ``text/plain; charset=utf-8``. ``web_socket`` is the client's
    end of a WebSocketPair and goes with status 101, which nothing else may have.

    Raises:
        InvalidRequestError: ``invalid_response``: a status that cannot be sent, or a body where
            none may be; ``invalid_header``.
    """

    __slots__ = ("_body", "_stream", "_stream_taken", "headers", "status", "web_socket")

    def __init__(
        self,
        body: Body | StreamBody = None,
        status: int = 200,
        headers: HeadersInit = None,
        *,
        web_socket: Any = None,
    ) -> None:
        self.status: int = _checked_status(status, web_socket)
        self.headers: Headers = Headers(headers)
        self.web_socket: Any = web_socket
        self._body: bytes | None = b""
        self._stream: StreamBody | None = None
        self._stream_taken = False
        if isinstance(body, str):
            self._body = body.encode()
            if "content-type" not in self.headers:
                self.headers.add("content-type", "text/plain; charset=utf-8")
        elif isinstance(body, bytes | bytearray | memoryview):
            self._body = bytes(body)
        elif isinstance(body, AsyncIterable):
            self._body, self._stream = None, body
        elif body is not None:
            raise _invalid_response(
                f"The body of a response is text, bytes or a stream, not {type(body).__name__}."
            )
        if status in _NO_BODY and self._body != b"":
            raise _invalid_response(f"A response of status {status} has no body.")

    @classmethod
    def from_json(cls, value: object, status: int = 200, headers: HeadersInit = None) -> Response:
        """A JSON body of any value that msgspec encodes: also dataclasses, Structs, datetimes.

        Raises:
            InvalidRequestError: ``invalid_json``: the value has no JSON form.
        """
        try:
            body = _encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError) as exc:
            raise InvalidRequestError(
                f"The value has no JSON form: {exc}.", code="invalid_json"
            ) from None
        response = cls(body, status, headers)
        if "content-type" not in response.headers:
            response.headers.add("content-type", "application/json")
        return response

    @property
    def ok(self) -> bool:
        """A status from 200 to 299."""
        return 200 <= self.status <= 299

    @property
    def is_stream(self) -> bool:
        """The body comes piece by piece and was not collected yet."""
        return self._body is None

    @property
    def stream(self) -> StreamBody | None:
        """What the body comes from, piece by piece; None if it is complete."""
        return self._stream if self._body is None else None

    def with_stream(self, stream: StreamBody) -> Response:
        """The same head with another body."""
        return Response(stream, self.status, self.headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, as it comes. A stream can be drawn once.

        Raises:
            ConflictError: ``body_used``: somebody drew the stream already.
        """
        if self._body is not None:
            if self._body:
                yield self._body
            return
        if self._stream is None or self._stream_taken:
            raise ConflictError("The body was read already.", code="body_used")
        self._stream_taken = True
        async for chunk in self._stream:
            yield chunk.encode() if isinstance(chunk, str) else chunk

    async def bytes(self) -> bytes:
        """The whole body; a stream is collected, then it may be read again.

        Raises:
            ConflictError: ``body_used``.
        """
        if self._body is None:
            self._body = b"".join([chunk async for chunk in self.chunks()])
        return self._body

    async def text(self) -> str:
        """The whole body as UTF-8; what is not UTF-8 becomes U+FFFD."""
        return (await self.bytes()).decode("utf-8", "replace")

    @overload
    async def json(self) -> Any: ...
    @overload
    async def json(self, type: type[T]) -> T: ...
    async def json(self, type: Any = None) -> Any:
        """The whole body as JSON; with ``type`` checked against it.

        Raises:
            InvalidRequestError: ``invalid_json``.
        """
        return _from_json(await self.bytes(), type)

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def _absolute(url: str) -> str:
    if url.startswith("/"):
        url = ORIGIN + url
    match = _URL.fullmatch(url)
    if match is None or _UNPRINTABLE.search(url):
        raise InvalidRequestError(
            f"{url[:100]!r} is neither an absolute URL nor a path; other than printable ASCII "
            "must be percent-encoded.",
            code="invalid_url",
        )
    rest: str = (match["rest"] or "/").partition("#")[0]
    return match["origin"] + (rest if rest.startswith("/") else "/" + rest)


def _origin(url: str) -> str:
    match = _URL.fullmatch(url)
    return ORIGIN if match is None else match["origin"]


def _from_json(body: bytes, kind: Any) -> Any:
    try:
        return _decode(body) if kind is None else msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise InvalidRequestError(f"Invalid body: {exc}.", code="invalid_json") from None
    except (msgspec.DecodeError, RecursionError, UnicodeError, OverflowError):
        raise InvalidRequestError("The body is not valid JSON.", code="invalid_json") from None


def _checked_status(status: int, web_socket: object) -> int:
    if (status == _STATUS_SWITCHING) != (web_socket is not None):
        raise _invalid_response("Status 101 and a web_socket go together.")
    if status != _STATUS_SWITCHING and not 200 <= status <= 599:
        raise _invalid_response(f"{status!r} is not the status of a response.")
    return status


def _invalid_response(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, code="invalid_response")
