"""Program: the user's app in this server, from ``--app`` to its routes and its next version.

Only a server with an app loads this module, and with it everything about WebSockets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from dosql.host.namespace_durability import check_without_bucket
from dosql.objects.app import App
from server.app_loader import AppLoader
from server.asgi import ASGIApp
from server.components import Components
from server.direct import Direct
from server.door import Door
from server.exchange import Answer
from server.object_routes import FetchRoute, RpcRoute
from server.reloader import Reloader
from server.settings import Settings
from server.socket_protocol import SocketServer, UpgradeProtocol, upgrade_protocol
from server.socket_sweep import SocketSweep


class Program:
    """One app and what belongs to it."""

    def __init__(self, target: str, settings: Settings) -> None:
        """``target`` is ``module:name``, looked for in the working directory first.

        Raises:
            InvalidRequestError: ``app_invalid``: it cannot run, and why.
        """
        if settings.reload:  # of two versions within a second, the older one's might be taken
            sys.dont_write_bytecode = True
        self.sweep = SocketSweep()
        """Pings the open WebSockets."""
        self._target = target
        self._settings = settings
        self._loader = AppLoader(target, Path.cwd())
        self.app = self._loader.load()
        if settings.bucket == "none":
            check_without_bucket(self.app)

    def __str__(self) -> str:
        return f"{self._target} ({', '.join(self.app.registrations) or 'no durable objects'})"

    def socket_protocol(self) -> type[UpgradeProtocol]:
        """What speaks WebSocket with the clients."""
        limit = self._settings.websocket_bytes_max
        return upgrade_protocol(SocketServer(message_bytes_max=limit, sweep=self.sweep))

    async def open(
        self,
        components: Components,
        exact: Mapping[str, ASGIApp],
        below: Mapping[str, ASGIApp],
        stack: AsyncExitStack,
    ) -> Direct:
        """Start what is mounted; the app's routes beside the server's ``exact`` ones and those
        ``below``. What was started stops with the ``stack``.

        Raises:
            InvalidRequestError: ``app_invalid``: what is mounted refuses to start.
        """
        components.metrics.open_sockets = self.sweep
        objects = components.host.objects
        shutdown_s = self._settings.shutdown_seconds
        answer = Answer(components.closing)
        fetch = FetchRoute(objects, components.gate, answer)
        door = Door(self.app, answer=answer, forward=fetch.forward)
        await door.open()
        stack.push_async_callback(door.close, shutdown_s)
        if self._settings.reload:

            async def replace(app: App) -> None:
                await objects.replace_app(app)
                await door.replace(app, shutdown_s)

            reloading = Reloader(self._loader, replace).run()
            stack.callback(asyncio.get_running_loop().create_task(reloading).cancel)
        rpc = RpcRoute(objects, components.gate)
        return Direct(exact, below={**below, "rpc": rpc}, objects=fetch, door=door)
