"""RawSocket: a WebSocket client that costs next to nothing, so that thousands fit one process.

It trusts its server: it is for measuring, and for sending what a proper client would not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

OnMessage = Callable[["RawSocket", int, bytes], None]
"""Socket, opcode, payload."""

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
)


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A frame from a client; the mask is zero, so the payload stays as it is."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + length + bytes(4) + payload


class RawSocket(asyncio.Protocol):
    """One connection.

    ``opened``: the head of the answer came. ``lost``: a Close frame came, with its code, or the
    connection ended without one: None. ``over``: the connection has ended.
    """

    __slots__ = (
        "_answers_pings",
        "_buffer",
        "_on_message",
        "_request",
        "head",
        "lost",
        "opened",
        "over",
        "transport",
    )

    def __init__(self, request: bytes, on_message: OnMessage, answers_pings: bool) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[bytes] = loop.create_future()
        self.lost: asyncio.Future[int | None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.head = b""
        self._answers_pings = answers_pings
        self._request = request
        self._on_message = on_message
        self._buffer = b""

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        on_message: OnMessage = lambda socket, opcode, payload: None,
        source: str | None = None,
        answers_pings: bool = True,
    ) -> RawSocket:
        """Connect and wait for the end of the handshake, whatever it says: see ``head``."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        request = _HANDSHAKE.format(path=path, headers=lines).encode()
        local = None if source is None else (source, 0)
        _, socket = await asyncio.get_running_loop().create_connection(
            lambda: cls(request, on_message, answers_pings), host, port, local_addr=local
        )
        socket.head = await socket.opened
        return socket

    def send(self, payload: str | bytes) -> None:
        """One whole message."""
        if isinstance(payload, str):
            self.transport.write(masked(1, payload.encode()))
        else:
            self.transport.write(masked(2, payload))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read the head, then frames."""
        buffer = self._buffer + data
        if not self.opened.done():
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            self.opened.set_result(head)
        self._buffer = self._read(buffer) if b" 101 " in self.opened.result()[:20] else buffer

    def _read(self, buffer: bytes) -> bytes:
        while len(buffer) >= 2:
            size, at = buffer[1], 2
            if size >= 126:
                at = 4 if size == 126 else 10
                size = int.from_bytes(buffer[2:at], "big")
            if len(buffer) < at + size:
                break
            opcode, payload = buffer[0] & 15, buffer[at : at + size]
            buffer = buffer[at + size :]
            if opcode == 8 and not self.lost.done():
                self.lost.set_result(int.from_bytes(payload[:2], "big"))
            if opcode == 9 and self._answers_pings:
                self.transport.write(masked(10, payload))
            self._on_message(self, opcode, payload)
        return buffer

    def connection_lost(self, exc: Exception | None) -> None:
        """Over."""
        if not self.opened.done():
            self.opened.set_result(b"")
        if not self.lost.done():
            self.lost.set_result(None)
        if not self.over.done():
            self.over.set_result(None)

    @property
    def rest(self) -> bytes:
        """What was read and is no frame yet; of a refused handshake the body."""
        return self._buffer
