"""Connections: one WebSocket as the host holds it, whether its object is awake or not.

What holds:

- Messages reach the object in the order they came: the next one starts only after the one before
  has started, and none starts after one that could not be delivered.
- Exactly one `CloseEvent` follows the last message, unless the host itself closed the socket.
- No more than `SOCKET_READ_AHEAD_MAX` messages are taken from the network and not yet handled.
- What waits for a slow reader is bounded; beyond it the socket is closed with 4008.

An idle connection has no task, no timer and no queue. The bytes on the wire are the business of a
`Transport`; what runs inside the object is the host's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from dosql.errors import DosqlError
from dosql.limits import SOCKET_OUTBOX_BYTES_MAX, SOCKET_OUTBOX_MESSAGES_MAX
from dosql.objects.inbox import Inbox

if TYPE_CHECKING:
    from dosql.objects.websocket import WebSocket

CLOSE_ABNORMAL = 1006
CLOSE_FAILED = 1011
CLOSE_RESTART = 1012
CLOSE_TRY_LATER = 1013
CLOSE_SLOW = 4008
GONE = "WebSocket disconnected without sending Close frame."

_log = logging.getLogger("dosql.sockets")


class ReadyState(IntEnum):
    """As in the browsers' WebSocket."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class MessageEvent(msgspec.Struct, frozen=True):
    """A message came."""

    data: str | bytes
    is_last: ClassVar = False


class CloseEvent(msgspec.Struct, frozen=True):
    """The socket is closed. ``was_clean``: both sides said so."""

    code: int
    reason: str
    was_clean: bool
    is_last: ClassVar = True


class ErrorEvent(msgspec.Struct, frozen=True):
    """The peer broke the protocol; a `CloseEvent` follows."""

    error: DosqlError
    is_last: ClassVar = False


SocketEvent = MessageEvent | CloseEvent | ErrorEvent


class Transport(Protocol):
    """The network side of a socket. No method blocks or raises.

    When it is over, for whatever reason, it calls `Connection.closed` once.
    """

    @property
    def buffered(self) -> int:
        """Bytes handed over that the network has not taken yet."""
        ...

    def send(self, message: str | bytes) -> None:
        """Send a message behind the ones before. Nothing happens once it is closed."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame behind all messages; abort if the peer does not answer it in time."""
        ...

    def abort(self) -> None:
        """Drop the connection and what waits in it."""
        ...

    def pause_reading(self) -> None:
        """Take no more messages from the network."""
        ...

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        ...


class Deliver(Protocol):
    """Run one event in the object that has the socket, waking it if need be.

    ``started`` is called once the event has its place among the object's events: the next message
    of the same socket may follow then. Errors of the user's handler are not raised here.

    Raises:
        DosqlError: the event did not reach the handler.
    """

    async def __call__(
        self, connection: Connection, event: SocketEvent, started: Callable[[], None]
    ) -> None: ...


class Owner(Protocol):
    """What a connection needs of the sockets it belongs to."""

    deliver: Deliver

    def auto_answer(self, message: str, connection: Connection) -> str | None:
        """The automatic response to this message, if there is one."""
        ...

    def forget(self, connection: Connection) -> None:
        """The socket is closed. Calling it again does nothing."""
        ...

    def abandoned(self, connection: Connection) -> None:
        """No client can come any more. May be called on any thread."""
        ...


class Connection:
    """One WebSocket between its client and its object. See the module docstring."""

    __slots__ = (
        "_burst",
        "_inbox",
        "_sent_code",
        "_silent",
        "_transport",
        "attachment",
        "auto_response_at_ms",
        "gone",
        "handle",
        "hibernatable",
        "owner",
        "state",
        "tags",
    )

    def __init__(self) -> None:
        self.owner: Owner | None = None
        """Set when the object accepts the socket."""
        self.state = ReadyState.CONNECTING
        """As the object sees it: what the peer does shows only when its event starts."""
        self.gone = False
        """The transport has ended."""
        self.hibernatable = True
        self.tags: tuple[str, ...] = ()
        self.attachment: bytes | None = None
        self.auto_response_at_ms: int | None = None
        self.handle: WebSocket | None = None
        """What the object's present life calls this connection."""
        self._transport: Transport = _Early()
        self._inbox: Inbox | None = None
        self._sent_code: int | None = None
        self._silent = False
        self._burst = 0

    # --- the object's side ---------------------------------------------------------------------
    def send(self, message: str | bytes) -> None:
        """Send, or close the socket if its reader is too far behind."""
        if self.gone or self._sent_code is not None:
            return
        transport = self._transport
        buffered = transport.buffered
        if buffered == 0:
            self._burst = 0
        self._burst += 1
        if buffered > SOCKET_OUTBOX_BYTES_MAX or self._burst > SOCKET_OUTBOX_MESSAGES_MAX:
            self.close(CLOSE_SLOW, "The client reads too slowly.")
            return
        transport.send(message)

    def close(self, code: int, reason: str) -> None:
        """Begin to close; only the first call counts."""
        self.state = max(self.state, ReadyState.CLOSING)
        if self._sent_code is None and not self.gone:
            self._sent_code = code
            self._transport.close(code, reason)

    def drop(self, code: int, reason: str) -> None:
        """Close without an event: the host itself ends the socket."""
        self._silent = True
        self.close(code, reason)
        self.state = ReadyState.CLOSED
        if self.owner is not None:
            self.owner.forget(self)

    @property
    def is_dropped(self) -> bool:
        """Whether the host ended the socket: the object is not told of it any more."""
        return self._silent

    @property
    def is_bound(self) -> bool:
        """Whether the client has been connected."""
        return not isinstance(self._transport, _Early)

    # --- the network's side --------------------------------------------------------------------
    def bind(self, transport: Transport) -> None:
        """Send what waited for it, and let events come."""
        early, self._transport = self._transport, transport
        if self.state is ReadyState.CONNECTING:
            self.state = ReadyState.OPEN
        if isinstance(early, _Early):
            early.replay(transport)

    def received(self, message: str | bytes) -> None:
        """A message came from the network."""
        if self._sent_code is not None or self.owner is None:
            return
        if isinstance(message, str):
            answer = self.owner.auto_answer(message, self)
            if answer is not None:
                self.send(answer)
                return
        self._offer(MessageEvent(message))

    def failed(self, error: DosqlError) -> None:
        """The peer broke the protocol; `closed` follows."""
        self._offer(ErrorEvent(error))

    def closed(self, code: int, reason: str, was_clean: bool) -> None:
        """The transport has ended. Only the first call counts."""
        if self.gone:
            return
        self.gone = True
        if not was_clean and self._sent_code is not None:
            code, reason = self._sent_code, "The client did not answer the Close frame."
        self._offer(CloseEvent(code, reason, was_clean))

    # --- events --------------------------------------------------------------------------------
    def begin(self, event: SocketEvent) -> None:
        """The event starts in the object, which from now on sees what it tells."""
        if event.is_last:
            self.state = ReadyState.CLOSED
            if self.owner is not None:
                self.owner.forget(self)

    def ended(self, event: SocketEvent) -> None:
        """The event is over, even if it never reached the object."""
        if event.is_last:
            self.begin(event)

    def undeliverable(self, error: BaseException) -> None:
        """An event was lost: nothing may follow it, so the client shall connect again."""
        retry = isinstance(error, DosqlError) and error.retryable
        if not retry:
            _log.error("A socket event could not be delivered.", exc_info=error)
        code, reason = (CLOSE_TRY_LATER, "Try again later.") if retry else (CLOSE_FAILED, "")
        self.close(code, reason or "The object failed.")

    def congested(self, is_congested: bool) -> None:
        """Whether the object has as many messages of this socket as it may have."""
        if is_congested:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def idle(self) -> None:
        """Nothing waits and nothing runs."""
        self._inbox = None

    def _offer(self, event: SocketEvent) -> None:
        if self._silent or self.owner is None:
            return
        if self._inbox is None:
            self._inbox = Inbox(self, self.owner.deliver)
        self._inbox.offer(event)


class _Early:
    """Stands in for the transport until the handshake is over: it keeps what is to be sent."""

    __slots__ = ("_messages", "_then", "buffered")

    def __init__(self) -> None:
        self.buffered = 0
        self._messages: list[str | bytes] = []
        self._then: Callable[[Transport], None] | None = None

    def send(self, message: str | bytes) -> None:
        self.buffered += len(message)
        self._messages.append(message)

    def close(self, code: int, reason: str) -> None:
        self._then = lambda transport: transport.close(code, reason)

    def abort(self) -> None:
        self._then = lambda transport: transport.abort()

    def pause_reading(self) -> None:
        """Nothing is read yet."""

    def resume_reading(self) -> None:
        """Nothing is read yet."""

    def replay(self, transport: Transport) -> None:
        for message in self._messages:
            transport.send(message)
        if self._then is not None:
            self._then(transport)
