"""Between ASGI and the Request and Response of `dosql.fetch`.

What belongs to one connection stays on it: it is neither shown to an object nor taken from one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from urllib.parse import quote_from_bytes

from dosql.errors import ConflictError, RequestError
from dosql.fetch import Headers, Request, Response
from server.asgi import ClientGone, Receive, Scope, Send, read_body
from server.context import context_of
from server.shown_errors import shown_error
from server.websockets import answer_upgrade, expect_upgrade

_HOST = re.compile(rb"[A-Za-z0-9.:_\[\]-]{1,255}", re.ASCII)
_URL_SAFE = "/:@!$&'()*+,;=~-._%?"
_OF_THE_CONNECTION = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"x-request-id",
    }
)
_NO_LENGTH = frozenset({204, 304})
_SCHEMES = {"ws": "http", "wss": "https"}


async def request_of(
    scope: Scope, receive: Receive, path: bytes | None = None, *, hide: frozenset[bytes]
) -> Request:
    """The request, with its body read to the end; ``path``, still encoded, instead of its own.

    Headers in ``hide`` are left out. The request's id is in its X-Request-ID.

    Raises:
        ClientGone: the client went away.
        InvalidRequestError: ``invalid_url``.
        LimitError: ``body_too_large``.
    """
    context = context_of(scope)
    if scope["type"] == "websocket":
        await expect_upgrade(receive)
        body = b""
    else:
        body = await read_body(receive)
    hidden = hide | {b"x-request-id"}
    pairs = [pair for pair in scope["headers"] if pair[0] not in hidden]
    pairs.append((b"x-request-id", context.request_id.encode()))
    host = context.headers.get(b"host", b"")
    origin = host.decode("ascii") if _HOST.fullmatch(host) else "localhost"
    scheme = _SCHEMES.get(scope["scheme"], scope["scheme"])
    url = f"{scheme}://{origin}{_printable(raw_path(scope) if path is None else path) or '/'}"
    if scope["query_string"]:
        url += f"?{_printable(scope['query_string'])}"
    return Request(url, scope.get("method", "GET"), Headers.from_raw(pairs), body)


def raw_path(scope: Scope) -> bytes:
    """The path as the client sent it, percent-encoded."""
    path: bytes | None = scope.get("raw_path")
    return quote_from_bytes(scope["path"].encode()).encode() if path is None else path


def _printable(part: bytes) -> str:
    text = part.decode("latin-1")
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    return quote_from_bytes(part, safe=_URL_SAFE)


class Answer:
    """Sends what a ``fetch`` answered. ``closing`` is set when the server begins to shut down."""

    def __init__(self, closing: asyncio.Event) -> None:
        self._closing = closing

    async def __call__(
        self, response: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """To a request, or to a WebSocket's handshake, whose socket goes over to the object.

        Raises:
            ClientGone: the client went away.
            RequestError: ``upgrade_required``: a WebSocket for a client that asked for none.
            InternalError: the response's socket was not accepted, or is another client's.
        """
        context = context_of(scope)
        if scope["type"] != "websocket":
            if response.web_socket is not None:
                response.web_socket.abandon()
                raise RequestError(
                    "There is a WebSocket here: ask for one, with Upgrade and Connection.",
                    code="upgrade_required",
                )
            context.from_app = True
            await send_response(response, scope, receive, send, self._closing)
            return
        context.from_app = True
        request_id = (b"x-request-id", context.request_id.encode())
        is_socket = response.web_socket is not None
        try:
            await answer_upgrade(scope, send, response, [request_id] if is_socket else [])
        except ConflictError as exc:
            raise shown_error(exc) from exc
        if is_socket:
            context.status = 101


async def send_response(
    response: Response, scope: Scope, receive: Receive, send: Send, closing: asyncio.Event
) -> None:
    """Send it. A stream ends when the client goes away; one of server-sent events, which would
    never end by itself, also when the server is ``closing``.

    Raises:
        ClientGone: the client went away.
        Exception: what drawing a stream raised; its reply is then cut off, not ended.
    """
    headers = [pair for pair in response.headers.raw() if pair[0] not in _OF_THE_CONNECTION]
    start = {"type": "http.response.start", "status": response.status, "headers": headers}
    is_head = scope["method"] == "HEAD"
    if response.is_stream:
        await send(start)
        if not is_head:
            endless = response.headers.get("content-type", "").startswith("text/event-stream")
            pump = _pump(response.chunks(), send)
            await _while_wanted(pump, receive, closing if endless else asyncio.Event())
        await send({"type": "http.response.body", "body": b""})
        return
    body = await response.bytes()
    if body or not is_head:  # an answer to HEAD may tell the length of what GET would give
        start["headers"] = headers = [pair for pair in headers if pair[0] != b"content-length"]
        if response.status not in _NO_LENGTH:
            headers.append((b"content-length", b"%d" % len(body)))
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def _pump(chunks: AsyncIterator[bytes], send: Send) -> None:
    async for chunk in chunks:
        if chunk:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _while_wanted(
    pump: Coroutine[Any, Any, None], receive: Receive, closing: asyncio.Event
) -> None:
    """Run ``pump`` until it ends, nobody listens any more, or the server closes."""
    loop = asyncio.get_running_loop()
    pumping, leaving = loop.create_task(pump), loop.create_task(_gone(receive))
    tasks: list[asyncio.Task[Any]] = [pumping, leaving, loop.create_task(closing.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if not pumping.cancelled():
        pumping.result()
    elif not leaving.cancelled():
        raise ClientGone


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
