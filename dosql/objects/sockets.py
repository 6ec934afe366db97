"""Sockets: the open WebSockets of one object. They outlive its life in memory.

The host makes one `Sockets` per object and keeps it as long as anybody refers to it: the object
while it is awake, and every open connection. A life of the object begins with `activate` and ends
with `deactivate`; between two lives the connections stay, with their tags and attachments, and
texts with an automatic response are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from msgspec.structs import astuple

from dosql.clock import Clock
from dosql.errors import ConflictError, InvalidRequestError, LimitError
from dosql.limits import SOCKET_TAG_CHARS_MAX, SOCKET_TAGS_MAX, SOCKETS_MAX
from dosql.objects.auto_response import WebSocketRequestResponsePair
from dosql.objects.connections import (
    CLOSE_ABNORMAL,
    CLOSE_FAILED,
    GONE,
    CloseEvent,
    Connection,
    Deliver,
    ErrorEvent,
    MessageEvent,
    ReadyState,
    SocketEvent,
)
from dosql.objects.websocket import (
    ClientWebSocket,
    Emit,
    WebSocket,
    WebSocketPair,
    already_accepted,
)

__all__ = [
    "ClientWebSocket",
    "CloseEvent",
    "Connection",
    "Deliver",
    "Emit",
    "ErrorEvent",
    "MessageEvent",
    "SocketEvent",
    "Sockets",
    "WebSocket",
    "WebSocketPair",
    "WebSocketRequestResponsePair",
]


_HANDLERS: dict[type[SocketEvent], str] = {
    MessageEvent: "websocket_message",
    CloseEvent: "websocket_close",
    ErrorEvent: "websocket_error",
}
"""The fields of an event are the arguments behind the socket."""


class Sockets:
    """All WebSockets of one object.

    ``deliver`` runs an event in the object; it is called for every event, awake or not.
    """

    def __init__(self, deliver: Deliver, clock: Clock) -> None:
        self.deliver = deliver
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock = clock
        self._open: dict[Connection, None] = {}
        self._by_tag: dict[str, dict[Connection, None]] = {}
        self._emit: Emit = _no_life
        self.auto_response: WebSocketRequestResponsePair | None = None

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def pins(self) -> bool:
        """Whether one of them keeps the object in memory: it was accepted by its own `accept`."""
        return any(not connection.hibernatable for connection in self._open)

    # --- lives of the object -------------------------------------------------------------------
    def activate(self, emit: Emit) -> None:
        """A life begins: what it sends passes through ``emit``, its output gate."""
        self._emit = emit

    def deactivate(self) -> None:
        """The life is over. Sockets that it had accepted without hibernation are closed (1011)."""
        self._emit = _no_life
        for connection in list(self._open):
            if connection.handle is not None:
                connection.handle.attach(_no_life)
                connection.handle = None
            if not connection.hibernatable:
                connection.drop(CLOSE_FAILED, "The object is no longer in memory.")

    def close_all(self, code: int, reason: str) -> None:
        """Close every socket without telling the object: it is broken, removed, or shut down."""
        for connection in list(self._open):
            connection.drop(code, reason)

    # --- what the object calls -----------------------------------------------------------------
    def accept(self, server: WebSocket, tags: Iterable[str] = ()) -> None:
        """Take the socket; its events go to the object's handlers, and it hibernates with it.

        Raises:
            InvalidRequestError: ``invalid_tags``: more than 10, one longer than 256 characters,
                or no text; ``invalid_websocket``: this is not the server's end of a pair.
            ConflictError: ``websocket_already_accepted``.
            LimitError: ``too_many_websockets``.
        """
        if not isinstance(server, WebSocket):
            raise InvalidRequestError(
                "Accept the server's end of a WebSocketPair, and return the client's.",
                code="invalid_websocket",
            )
        connection = server.connection
        if connection.owner is not None or not connection.hibernatable:
            raise already_accepted()
        checked = _check_tags(tags)
        self._take(connection, server)
        connection.tags = checked
        for tag in checked:
            self._by_tag.setdefault(tag, {})[connection] = None

    def adopt(self, client: ClientWebSocket) -> None:
        """A response with this socket leaves the object: if its server end was accepted by
        `WebSocket.accept`, it belongs to the object from now on.

        Raises:
            LimitError: ``too_many_websockets``.
        """
        connection = client.server.connection
        if connection.owner is None and not connection.hibernatable:
            self._take(connection, client.server)

    def get(self, tag: str | None = None) -> list[WebSocket]:
        """Those that can be sent to, or those of them with the tag, oldest first."""
        connections = self._open if tag is None else self._by_tag.get(tag, ())
        return [
            self.handle(connection)
            for connection in connections
            if connection.hibernatable and connection.state < ReadyState.CLOSING
        ]

    def tags(self, websocket: WebSocket) -> list[str]:
        """The tags it was accepted with.

        Raises:
            InvalidRequestError: ``invalid_websocket``: this object did not accept it by
                ``ctx.accept_websocket``.
        """
        return list(self._mine(websocket).tags)

    def auto_response_timestamp(self, websocket: WebSocket) -> int | None:
        """When it was last answered automatically, in ms since the epoch; None: never."""
        return self._mine(websocket).auto_response_at_ms

    def set_auto_response(self, pair: WebSocketRequestResponsePair | None = None) -> None:
        """Answer this text for the object on all its sockets; None: no more."""
        if pair is not None and not isinstance(pair, WebSocketRequestResponsePair):
            raise InvalidRequestError(
                "An auto-response is a WebSocketRequestResponsePair.", code="invalid_auto_response"
            )
        self.auto_response = pair

    # --- events --------------------------------------------------------------------------------
    def begin(
        self, instance: object, connection: Connection, event: SocketEvent
    ) -> list[Callable[[], object]]:
        """An event starts in the object: what is to be called, one after the other.

        Each may return an awaitable. Empty if the class has no handler for it.
        """
        websocket = self.handle(connection)
        connection.begin(event)
        if not connection.hibernatable:
            return [partial(listener, event) for listener in websocket.listeners_of(event)]
        handler = getattr(instance, _HANDLERS[type(event)], None)
        return [] if handler is None else [partial(handler, websocket, *astuple(event))]

    def handles(self, cls: type, event: SocketEvent) -> bool:
        """Whether the class has a handler for such an event: else nobody need be woken for it."""
        return hasattr(cls, _HANDLERS[type(event)])

    def handle(self, connection: Connection) -> WebSocket:
        """What this life of the object calls the connection: always the same."""
        websocket = connection.handle
        if websocket is None:
            websocket = connection.handle = WebSocket(connection, self._emit)
        return websocket

    # --- for the connections -------------------------------------------------------------------
    def auto_answer(self, message: str, connection: Connection) -> str | None:
        """The automatic response to this message, if there is one."""
        pair = self.auto_response
        if pair is None or message != pair.request or not connection.hibernatable:
            return None
        now_ms = connection.auto_response_at_ms = self._clock.now_ms()
        return pair.answer(now_ms)

    def forget(self, connection: Connection) -> None:
        """The socket is closed. Calling it again does nothing."""
        if self._open.pop(connection, connection) is connection:
            return
        for tag in connection.tags:
            tagged = self._by_tag[tag]
            del tagged[connection]
            if not tagged:
                del self._by_tag[tag]

    def abandoned(self, connection: Connection) -> None:
        """No client can come any more. May be called on any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(connection.closed, CLOSE_ABNORMAL, GONE, False)

    def _take(self, connection: Connection, server: WebSocket) -> None:
        if len(self._open) >= SOCKETS_MAX:
            raise LimitError(
                f"The object has {SOCKETS_MAX:,} open WebSockets already.",
                code="too_many_websockets",
            )
        self._loop = asyncio.get_running_loop()
        connection.owner = self
        connection.handle = server
        self._open[connection] = None
        server.attach(self._emit)

    def _mine(self, websocket: WebSocket) -> Connection:
        connection = getattr(websocket, "connection", None)
        if (
            not isinstance(connection, Connection)
            or connection.owner is not self
            or not connection.hibernatable
        ):
            raise InvalidRequestError(
                "This object did not accept that WebSocket by ctx.accept_websocket.",
                code="invalid_websocket",
            )
        return connection


def _check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The distinct ones, in their order."""
    if isinstance(tags, str):
        raise _invalid_tags("must be a list of texts, not one text")
    distinct = tuple(dict.fromkeys(tags))
    if len(distinct) > SOCKET_TAGS_MAX:
        raise _invalid_tags(f"are {len(distinct)}; {SOCKET_TAGS_MAX} different ones are allowed")
    for tag in distinct:
        if not isinstance(tag, str):
            raise _invalid_tags(f"must be texts, not {type(tag).__name__}")
        if len(tag) > SOCKET_TAG_CHARS_MAX:
            raise _invalid_tags(f"may have {SOCKET_TAG_CHARS_MAX} characters; one has {len(tag)}")
    return distinct


def _invalid_tags(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"The tags of a WebSocket {what}.", code="invalid_tags")


def _no_life(action: Callable[[], None]) -> None:
    raise ConflictError(
        "This WebSocket belongs to an earlier life of the object: take it from "
        "ctx.get_websockets() again.",
        code="websocket_closed",
    )
