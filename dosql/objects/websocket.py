"""WebSockets as class code sees them: the server's end, and the pair it comes from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

from dosql.errors import ConflictError, DosqlError, InvalidRequestError, LimitError
from dosql.limits import ATTACHMENT_BYTES_MAX
from dosql.objects.connections import (
    CLOSE_ABNORMAL,
    GONE,
    CloseEvent,
    Connection,
    ErrorEvent,
    MessageEvent,
    ReadyState,
    SocketEvent,
    Transport,
)
from dosql.objects.values import decode_value, encode_value

Emit = Callable[[Callable[[], None]], None]
"""Runs the action once everything written before is durable; actions keep their order."""
Listener = Callable[[Any], object]

_EVENTS: dict[str, type[SocketEvent]] = {
    "message": MessageEvent,
    "close": CloseEvent,
    "error": ErrorEvent,
}
_RESERVED_CODES = frozenset({1004, 1005, 1006})
_REASON_BYTES_MAX = 123


class WebSocket:
    """The server's end of one WebSocket.

    It is the same Python object for as long as its object stays in memory, and takes no
    attributes: after a hibernation it is a new one, and only the attachment is still there.
    Everything that is sent passes the output gate: nobody sees a write that is not durable.
    """

    CONNECTING: ClassVar = ReadyState.CONNECTING
    OPEN: ClassVar = ReadyState.OPEN
    CLOSING: ClassVar = ReadyState.CLOSING
    CLOSED: ClassVar = ReadyState.CLOSED

    __slots__ = ("__weakref__", "_connection", "_emit", "_listeners", "_unsent")

    def __init__(self, connection: Connection, emit: Emit | None = None) -> None:
        self._connection = connection
        self._emit: Emit | None = emit
        self._listeners: dict[type[SocketEvent], list[Listener]] | None = None
        self._unsent: deque[Callable[[], None]] | None = None
        """Between `accept` and the moment the object's gate is known."""

    # --- sending -------------------------------------------------------------------------------
    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text or bytes, behind everything sent before.

        Returns at once. A client that reads too slowly is disconnected with 4008. What is sent
        to one that has just gone is dropped; its close event is on its way.

        Raises:
            ConflictError: ``websocket_closed``; ``websocket_not_accepted``.
            InvalidRequestError: ``invalid_message``: neither text nor bytes.
        """
        if not isinstance(message, str | bytes):
            if not isinstance(message, bytearray | memoryview):
                raise _invalid_message(f"must be str or bytes, not {type(message).__name__}")
            message = bytes(message)
        elif isinstance(message, str) and not message.isascii():
            try:
                message.encode()
            except UnicodeEncodeError:
                raise _invalid_message("is not valid Unicode text") from None
        connection = self._connection
        if connection.state >= ReadyState.CLOSING:
            raise ConflictError("The WebSocket is closed.", code="websocket_closed")
        self._pass_gate(partial(connection.send, message))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close behind everything sent before; a second call does nothing.

        Raises:
            InvalidRequestError: ``invalid_close``: a code that may not be sent (1000-1003,
                1007-1014 and 3000-4999 may), or a reason longer than 123 bytes.
            ConflictError: ``websocket_not_accepted``.
        """
        _check_close(code, reason)
        connection = self._connection
        if connection.state >= ReadyState.CLOSING:
            return
        self._pass_gate(partial(connection.close, code, reason))
        connection.state = ReadyState.CLOSING

    def _pass_gate(self, action: Callable[[], None]) -> None:
        if self._emit is not None:
            self._emit(action)
        elif self._unsent is not None:
            self._unsent.append(action)
        else:
            raise ConflictError(
                "The WebSocket is not accepted yet: call ctx.accept_websocket(server) first.",
                code="websocket_not_accepted",
            )

    # --- state ---------------------------------------------------------------------------------
    @property
    def ready_state(self) -> ReadyState:
        """As far as this object has been told."""
        state = self._connection.state
        return ReadyState.OPEN if state is ReadyState.CONNECTING and self._emit else state

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags it was accepted with, in their order."""
        return self._connection.tags

    def serialize_attachment(self, value: object) -> None:
        """Keep a value with the socket; it survives hibernation and replaces the one before.

        Raises:
            LimitError: ``attachment_too_large``: more than 16,384 bytes as stored.
            InvalidRequestError: ``value_not_storable``.
        """
        encoded = encode_value(value)
        if len(encoded) > ATTACHMENT_BYTES_MAX:
            raise LimitError(
                f"The attachment is {len(encoded):,} bytes long; "
                f"{ATTACHMENT_BYTES_MAX:,} are allowed. Keep the rest in ctx.storage.",
                code="attachment_too_large",
            )
        self._connection.attachment = encoded

    def deserialize_attachment(self) -> Any:
        """A fresh copy of the value kept with the socket; None without one."""
        encoded = self._connection.attachment
        return None if encoded is None else decode_value(encoded)

    # --- the standard interface ----------------------------------------------------------------
    def accept(self) -> None:
        """Accept without hibernation: the object stays in memory while the socket is open.

        Events go to `add_event_listener`. Prefer ``ctx.accept_websocket``.

        Raises:
            ConflictError: ``websocket_already_accepted``.
        """
        connection = self._connection
        if self._unsent is not None or connection.owner is not None:
            raise already_accepted()
        connection.hibernatable = False
        self._unsent = deque()

    def add_event_listener(self, kind: str, listener: Listener) -> None:
        """Call ``listener`` (plain or async) with every event: "message", "close" or "error".

        Raises:
            InvalidRequestError: ``invalid_listener``: no such kind of event, or the socket was
                accepted by ``ctx.accept_websocket`` and has handlers instead.
        """
        if kind not in _EVENTS:
            raise InvalidRequestError(
                f"A WebSocket has no event {kind!r}; message, close and error are its events.",
                code="invalid_listener",
            )
        if self._connection.hibernatable and self._connection.owner is not None:
            raise InvalidRequestError(
                "This WebSocket hibernates: write websocket_message, websocket_close and "
                "websocket_error in the class instead.",
                code="invalid_listener",
            )
        if self._listeners is None:
            self._listeners = {}
        self._listeners.setdefault(_EVENTS[kind], []).append(listener)

    # --- for the host --------------------------------------------------------------------------
    @property
    def connection(self) -> Connection:
        """For the host: what is behind it."""
        return self._connection

    def listeners_of(self, event: SocketEvent) -> list[Listener]:
        """For the host: whom the event goes to."""
        return list((self._listeners or {}).get(type(event), ()))

    def attach(self, emit: Emit) -> None:
        """For the host: send through this gate from now on, first what waited for it."""
        self._emit = emit
        unsent, self._unsent = self._unsent, None
        for action in unsent or ():
            emit(action)

    def __repr__(self) -> str:
        return f"<WebSocket {self.ready_state.name} tags={list(self.tags)}>"


class ClientWebSocket:
    """The client's end of a pair: put it into a `Response` with status 101, and let it go.

    If it is dropped without a client, its object gets the close event, as of a lost connection.
    """

    __slots__ = ("__weakref__", "_connection", "server")

    def __init__(self, connection: Connection, server: WebSocket) -> None:
        self._connection = connection
        self.server = server

    @property
    def is_accepted(self) -> bool:
        """Whether an object has accepted the other end."""
        return self._connection.owner is not None

    def check_free(self) -> None:
        """For the host: see that a client can be connected.

        Raises:
            ConflictError: ``websocket_not_accepted``, ``websocket_already_connected``.
        """
        if not self.is_accepted:
            raise ConflictError(
                "The response has a WebSocket whose server end no object has accepted: call "
                "ctx.accept_websocket(server) before returning the client end.",
                code="websocket_not_accepted",
            )
        if self._connection.is_bound:
            raise ConflictError(
                "This WebSocket has its client already.", code="websocket_already_connected"
            )

    def bind(self, transport: Transport) -> Connection:
        """For the host: the handshake is over, and this is the network. Raises as `check_free`."""
        self.check_free()
        self._connection.bind(transport)
        return self._connection

    def abandon(self) -> None:
        """For the host: the client went away before the handshake was over."""
        connection = self._connection
        if not connection.is_bound and not connection.gone:
            connection.closed(CLOSE_ABNORMAL, GONE, False)

    def __del__(self) -> None:
        connection = self._connection
        if connection.owner is not None and not connection.is_bound and not connection.gone:
            connection.owner.abandoned(connection)


class WebSocketPair:
    """Two connected ends: ``client, server = WebSocketPair()``."""

    __slots__ = ("client", "server")

    def __init__(self) -> None:
        connection = Connection()
        self.server = WebSocket(connection)
        self.client = ClientWebSocket(connection, self.server)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.client, self.server))


def already_accepted() -> ConflictError:
    """The error for a second acceptance."""
    return ConflictError("This WebSocket is accepted already.", code="websocket_already_accepted")


def _check_close(code: int, reason: str) -> None:
    sendable = 1000 <= code <= 1014 or 3000 <= code <= 4999
    if not sendable or code in _RESERVED_CODES:
        raise InvalidRequestError(
            f"A WebSocket cannot be closed with {code}; use 1000 or 4000-4999.",
            code="invalid_close",
        )
    try:
        size = len(reason.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError("The reason is not valid text.", code="invalid_close") from None
    if size > _REASON_BYTES_MAX:
        raise InvalidRequestError(
            f"The reason of a close is {size} bytes long; {_REASON_BYTES_MAX} are allowed.",
            code="invalid_close",
        )


def _invalid_message(what: str) -> DosqlError:
    return InvalidRequestError(f"A WebSocket message {what}.", code="invalid_message")
