"""MemorySocket: a WebSocket client without a network, for tests of objects."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from dosql.objects.connections import CLOSE_ABNORMAL, GONE
from dosql.objects.websocket import ClientWebSocket


class SocketClosed(Exception):
    """The socket is closed, and no message is left."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class MemorySocket:
    """The client of ``client``, the socket in an object's response.

    It takes what the object sends at once and answers a Close frame at once, unless it is told
    to `stop_reading`.
    """

    def __init__(self, client: ClientWebSocket) -> None:
        self.close_code: int | None = None
        """What the object closed the socket with, or `close` did; None while it is open."""
        self.close_reason = ""
        self._arrived: deque[str | bytes] = deque()
        self._news = asyncio.Event()
        self._transport = _MemoryTransport(self)
        self._connection = client.server.connection
        client.bind(self._transport)

    async def send(self, message: str | bytes) -> None:
        """Send to the object. Returns when the message is on its way, not when it is handled.

        Raises:
            SocketClosed: the socket is closed.
        """
        if self.close_code is not None:
            raise SocketClosed(self.close_code, self.close_reason)
        self._transport.deliver(message)
        await asyncio.sleep(0)

    async def receive(self) -> str | bytes:
        """The next message, as soon as there is one.

        Raises:
            SocketClosed: there will be none.
        """
        while not self._arrived:
            if self.close_code is not None:
                raise SocketClosed(self.close_code, self.close_reason)
            self._news.clear()
            await self._news.wait()
        return self._arrived.popleft()

    def receive_nowait(self) -> list[str | bytes]:
        """All messages that came so far."""
        messages = list(self._arrived)
        self._arrived.clear()
        return messages

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while True:
            try:
                yield await self.receive()
            except SocketClosed:
                return

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in order."""
        self._ended(code, reason)
        self._connection.closed(code, reason, True)
        await asyncio.sleep(0)

    async def vanish(self) -> None:
        """End without a Close frame, as a lost network does."""
        self._ended(CLOSE_ABNORMAL, GONE)
        self._connection.closed(CLOSE_ABNORMAL, GONE, False)
        await asyncio.sleep(0)

    def cut(self) -> None:
        """End without the object hearing of it: its whole process is gone."""
        self._ended(CLOSE_ABNORMAL, GONE)

    def stop_reading(self) -> None:
        """Be a slow client: what the object sends waits at its side."""
        self._transport.stop()

    def read_on(self) -> None:
        """Undo `stop_reading`, and take what waited."""
        self._transport.go_on()

    # --- for the transport ---------------------------------------------------------------------
    def _came(self, message: str | bytes) -> None:
        self._arrived.append(message)
        self._news.set()

    def _ended(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            self._transport.over = True
            self._news.set()

    def _answer_close(self, code: int, reason: str) -> None:
        self._ended(code, reason)
        asyncio.get_running_loop().call_soon(self._connection.closed, code, reason, True)


class _MemoryTransport:
    """Implements `Transport`."""

    def __init__(self, socket: MemorySocket) -> None:
        self.buffered = 0
        self.over = False
        self._socket = socket
        self._held: deque[str | bytes] | None = None
        self._close: tuple[int, str] | None = None
        self._unread: deque[str | bytes] | None = None

    def send(self, message: str | bytes) -> None:
        if self.over or self._close is not None:
            return
        if self._held is None:
            self._socket._came(message)
        else:
            self._held.append(message)
            self.buffered += len(message)

    def close(self, code: int, reason: str) -> None:
        if self.over or self._close is not None:
            return
        self._close = (code, reason)
        if self._held is None:
            self._socket._answer_close(code, reason)

    def abort(self) -> None:
        if not self.over:
            self._socket._ended(CLOSE_ABNORMAL, "aborted")
            loop = asyncio.get_running_loop()
            loop.call_soon(self._socket._connection.closed, CLOSE_ABNORMAL, GONE, False)

    def pause_reading(self) -> None:
        if self._unread is None:
            self._unread = deque()

    def resume_reading(self) -> None:
        unread, self._unread = self._unread, None
        for message in unread or ():
            self.deliver(message)

    def deliver(self, message: str | bytes) -> None:
        """A message of the client, unless the object does not read at the moment."""
        if self._unread is not None:
            self._unread.append(message)
        else:
            self._socket._connection.received(message)

    def stop(self) -> None:
        self._held = self._held or deque()

    def go_on(self) -> None:
        held, self._held = self._held, None
        self.buffered = 0
        for message in held or ():
            self._socket._came(message)
        if self._close is not None and not self.over:
            self._socket._answer_close(*self._close)
