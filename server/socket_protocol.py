"""SocketProtocol: one open WebSocket of an object, on the network side.

uvicorn's own protocol makes the handshake, and speaks ASGI to applications that are mounted.
A socket that an object accepted leaves it then (`UpgradeProtocol.take_over`): ASGI would keep a
task, two queues and the parsed request alive for as long as the socket is open, which is most of
what an idle socket costs (docs/decisions/0005-websocket-protocol.md). What stays is this protocol,
without task and timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from websockets.http11 import Request

from dosql.errors import InvalidRequestError
from dosql.limits import SOCKET_CLOSE_S_MAX, SOCKET_OUTBOX_BYTES_MAX
from dosql.objects.connections import (
    CLOSE_ABNORMAL,
    CLOSE_RESTART,
    GONE,
    Connection,
)
from dosql.objects.websocket import ClientWebSocket
from server.asgi import ClientGone
from server.frames import (
    FrameError,
    FrameReader,
    MessageEncoder,
    Opcode,
    decode_close,
    encode_close,
    encode_frame,
)
from server.handshakes import HandshakeProtocol
from server.socket_sweep import SocketSweep

TAKE_OVER = "dosql.take_over"
"""ASGI extension of `UpgradeProtocol`: its method `take_over`."""
_PING = encode_frame(Opcode.PING, b"")


class SocketServer:
    """What all sockets of a server share."""

    def __init__(self, *, message_bytes_max: int, sweep: SocketSweep) -> None:
        self.message_bytes_max = message_bytes_max
        self.sweep = sweep
        self.encoder = MessageEncoder()


class SocketProtocol(asyncio.Protocol):
    """Implements `Transport` for a `Connection`."""

    __slots__ = (
        "_alive",
        "_closing",
        "_connection",
        "_connections",
        "_give_up",
        "_paused",
        "_reader",
        "_server",
        "_transport",
        "sweep_slice",
    )

    def __init__(
        self, transport: asyncio.Transport, server: SocketServer, connections: set[Any]
    ) -> None:
        """``connections`` are uvicorn's, which it shuts down at the end."""
        self.sweep_slice = 0
        self._transport = transport
        self._server = server
        self._connections = connections
        self._connection: Connection | None = None
        self._reader = FrameReader(server.message_bytes_max)
        self._give_up: asyncio.TimerHandle | None = None
        self._alive = True
        """Something came since the last `check`."""
        self._closing = False
        """A Close frame was sent: nothing is sent behind it."""
        self._paused = False
        connections.add(self)
        server.sweep.add(self)

    def bind(self, client: ClientWebSocket) -> None:
        """From now on the object's socket and this one are one."""
        self._connection = client.bind(self)

    # --- the network ---------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self._alive = True
        self._reader.feed(data)
        self._read()

    def eof_received(self) -> None:
        """The client stopped without a Close frame; asyncio closes the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, for whatever reason."""
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        self._server.sweep.discard(self)
        self._connections.discard(self)
        self._tell_closed(CLOSE_ABNORMAL, GONE, False)

    def _read(self) -> None:
        try:
            while not self._paused and self._connection is not None:
                frame = self._reader.next()
                if frame is None:
                    return
                opcode, payload = frame
                if opcode is Opcode.TEXT:
                    self._connection.received(_text(payload))
                elif opcode is Opcode.BINARY:
                    self._connection.received(payload)
                elif opcode is Opcode.PING:
                    self._pong(payload)
                elif opcode is Opcode.CLOSE:
                    self._peer_closes(*decode_close(payload))
        except FrameError as error:
            self._violated(error)

    def _pong(self, payload: bytes) -> None:
        if self.buffered > SOCKET_OUTBOX_BYTES_MAX:
            self.abort()  # it pings and never reads
        elif not self._closing:
            self._transport.write(encode_frame(Opcode.PONG, payload))

    def _peer_closes(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            answer = encode_frame(Opcode.CLOSE, b"") if code == 1005 else encode_close(code, "")
            self._transport.write(answer)
        self._finish()
        self._tell_closed(code, reason, True)

    def _violated(self, error: FrameError) -> None:
        connection = self._connection
        if connection is not None:
            told = InvalidRequestError(error.reason, code="websocket_protocol_error")
            connection.failed(told)
        if not self._closing:
            self._closing = True
            self._transport.write(encode_close(error.code, error.reason))
        self._finish()
        self._tell_closed(error.code, error.reason, False)

    def _finish(self) -> None:
        """Close once everything is written, or the client takes too long to read it."""
        self._arm()
        self._transport.close()

    def _arm(self) -> None:
        if self._give_up is None:
            loop = asyncio.get_running_loop()
            self._give_up = loop.call_later(SOCKET_CLOSE_S_MAX, self._transport.abort)

    def _tell_closed(self, code: int, reason: str, was_clean: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.closed(code, reason, was_clean)

    # --- the object (see `Transport`) ----------------------------------------------------------
    @property
    def buffered(self) -> int:
        """Bytes that the network has not taken yet."""
        return self._transport.get_write_buffer_size()

    def send(self, message: str | bytes) -> None:
        """Send a message behind the ones before."""
        if not self._closing:
            self._transport.write(self._server.encoder.encode(message))

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        if not self._closing:
            self._closing = True
            self._transport.write(encode_close(code, reason))
            self._arm()
            if self._paused:
                self.resume_reading()  # the answer is behind what was not read yet

    def abort(self) -> None:
        """Drop the connection."""
        self._closing = True
        self._transport.abort()

    def pause_reading(self) -> None:
        """Take no more messages from the network."""
        if not self._paused and not self._closing:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
            asyncio.get_running_loop().call_soon(self._read)

    # --- the server ----------------------------------------------------------------------------
    def check(self) -> None:
        """Ping; or give up, if nothing came since the last time.

        While the object is behind with the messages of this socket, it is us who do not read.
        """
        if self._paused or self._closing:
            return
        if not self._alive:
            self.abort()
            return
        self._alive = False
        self._transport.write(_PING)

    def shutdown(self) -> None:
        """The server ends: the client may connect again to the next one."""
        connection = self._connection
        if connection is not None:
            connection.drop(CLOSE_RESTART, "The server restarts.")
        else:
            self.close(CLOSE_RESTART, "The server restarts.")


class UpgradeProtocol(HandshakeProtocol):
    """uvicorn's protocol, until an object takes its socket over."""

    socket_server: SocketServer
    """Set on a subclass by `upgrade_protocol`."""

    _is_early = False
    """The client sent something before the handshake was over."""

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self.handshake_initiated and not self.handshake_complete:
            self._is_early = True
        super().data_received(data)

    def handle_connect(self, event: Request) -> None:
        """The client asks for a WebSocket: the application starts soon."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions = cast("dict[str, Any]", self.scope.setdefault("extensions", {}))
            extensions[TAKE_OVER] = self.take_over

    def take_over(self, client: ClientWebSocket, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the handshake, and give the connection to the object that accepted ``client``.

        Raises:
            ClientGone: it has gone, or did not wait for the end of the handshake.
            ConflictError: ``websocket_not_accepted``: by no object.
        """
        transport = self.transport
        client.check_free()
        if self.disconnected or transport.is_closing() or self._is_early:
            client.abandon()
            raise ClientGone
        response = self.response
        for name, value in headers:
            response.headers[name.decode("latin-1")] = value.decode("latin-1")
        protocol = SocketProtocol(transport, self.socket_server, self.connections)
        self.conn.send_response(response)
        transport.write(b"".join(self.conn.data_to_send()))
        protocol.bind(client)
        transport.set_protocol(protocol)
        self.connections.discard(self)
        self.handshake_complete = self.close_sent = True
        self.transport = cast("asyncio.Transport", _Nothing())


class _Nothing:
    """What uvicorn closes in place of a connection that is no longer its own."""

    def close(self) -> None:
        """Nothing."""

    def is_closing(self) -> bool:
        return True


def upgrade_protocol(server: SocketServer) -> type[UpgradeProtocol]:
    """The protocol with its components: uvicorn makes the instances."""
    return type("UpgradeProtocol", (UpgradeProtocol,), {"socket_server": server})


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(1007, "The text of a message is not UTF-8.") from None
