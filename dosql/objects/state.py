"""ObjectState: ``ctx``, what an object's code is given of its surroundings."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn, TypeVar

from dosql.clock import Clock
from dosql.ids import ObjectId
from dosql.objects.activation import Activation
from dosql.objects.auto_response import WebSocketRequestResponsePair
from dosql.objects.sockets import Sockets
from dosql.objects.storage import ObjectStorage
from dosql.objects.websocket import WebSocket

T = TypeVar("T")
_log = logging.getLogger("dosql.objects")


class ObjectState:
    """Belongs to one life of the object in memory."""

    def __init__(
        self, id: ObjectId, activation: Activation, storage: ObjectStorage, sockets: Sockets
    ) -> None:
        self.id = id
        """Which object this is; ``id.name`` if it has a name."""
        self.storage = storage
        self._activation = activation
        self._sockets = sockets

    @property
    def clock(self) -> Clock:
        """The object's time: in a test, the one that the test moves."""
        return self._activation.clock

    # --- concurrency --------------------------------------------------------------------------

    def block_concurrency_while(self, body: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Run ``body`` while no other event of the object does; also from the constructor, where
        nothing is awaited. If it raises, or takes longer than 30 s, the object is reset.

        Raises:
            ConflictError: ``nested_too_deeply``: more than 64 inside each other.
        """
        return self._activation.sections.block_concurrency_while(body)

    def wait_until(self, awaitable: Awaitable[object]) -> None:
        """Let this go on after the reply; the object stays in memory for it. What it raises is
        logged."""

        async def run() -> None:
            try:
                await awaitable
            except Exception:
                _log.exception("wait_until of object %s failed", self.id)

        self._activation.spawn(run())

    def abort(self, reason: str | None = None, *, retry_alarm: bool = True) -> NoReturn:
        """Reset the object at once: undo what is not durable, drop what waits to leave, forget
        its memory. Does not return; no ``except Exception`` stops it. Whoever waits for the object
        gets ObjectResetError with the reason.

        With ``retry_alarm=False`` an alarm that runs now is not tried again: it is given up, as
        after too many failures.
        """
        if not retry_alarm:
            self.storage._give_up_running_alarms()
        self._activation.abort(reason)

    # --- WebSockets ---------------------------------------------------------------------------

    def accept_websocket(self, server: WebSocket, tags: Iterable[str] = ()) -> None:
        """Take the server's end of a `WebSocketPair`; its events go to the object's handlers, and
        it stays open while the object hibernates.

        Raises: as `Sockets.accept`.
        """
        self._sockets.accept(server, tags)

    def get_websockets(self, tag: str | None = None) -> list[WebSocket]:
        """The open ones, or those with the tag, oldest first."""
        return self._sockets.get(tag)

    def get_tags(self, ws: WebSocket) -> list[str]:
        """The tags it was accepted with. Raises InvalidRequestError (``invalid_websocket``)."""
        return self._sockets.tags(ws)

    def set_websocket_auto_response(self, pair: WebSocketRequestResponsePair | None = None) -> None:
        """Answer this text on all sockets without waking the object; None: no more."""
        self._sockets.set_auto_response(pair)

    def get_websocket_auto_response(self) -> WebSocketRequestResponsePair | None:
        """What `set_websocket_auto_response` was given last."""
        return self._sockets.auto_response

    def get_websocket_auto_response_timestamp(self, ws: WebSocket) -> int | None:
        """When the socket was last answered automatically, in ms since the epoch."""
        return self._sockets.auto_response_timestamp(ws)
