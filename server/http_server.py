"""HttpServer: uvicorn, with our streams told to end when it shuts down, and a clean exit status."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import Server

from server.components import Components
from server.edge import Edge
from server.protocol import close_stalled, protocol_class
from server.settings import Settings

if TYPE_CHECKING:
    from server.program import Program

_KEEP_ALIVE_S = 75
"""Longer than the 60 s of usual proxies: they, not we, close idle connections."""


def _plain_sockets(*args: Any, **kwargs: Any) -> asyncio.Protocol:
    """What speaks WebSocket without an app, loaded with the first who wants it: few do."""
    from server.handshakes import HandshakeProtocol

    return HandshakeProtocol(*args, **kwargs)


class HttpServer(Server):
    """Serves the edge on sockets that are bound already."""

    def __init__(
        self, app: Edge, components: Components, settings: Settings, program: Program | None
    ) -> None:
        self._sockets = None if program is None else program.sweep
        super().__init__(
            Config(
                app,
                lifespan="off",
                ws=_plain_sockets if program is None else program.socket_protocol(),  # type: ignore[arg-type]
                ws_max_size=settings.websocket_bytes_max,
                ws_per_message_deflate=False,
                http=protocol_class(
                    components.clock, components.randomness, has_app=program is not None
                ),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
            )
        )
        self._clock = components.clock
        self._closing = components.closing

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal begins the shutdown, a second one of SIGINT cuts it short."""
        loop = asyncio.get_running_loop()
        handled = (signal.SIGINT, signal.SIGTERM)
        for number in handled:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and close those that stall."""
        await super().startup(sockets)
        sweep = close_stalled(self.server_state.connections, self._clock)
        self._sweep = asyncio.get_running_loop().create_task(sweep)
        if self._sockets is not None:
            self._sockets.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let streams end, then wait for the requests under way."""
        self._sweep.cancel()
        if self._sockets is not None:
            self._sockets.stop()
        self._closing.set()
        await super().shutdown(sockets)
