"""LazyApp: an application that is built while the server already answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from server.asgi import ASGIApp, Receive, Scope, Send


class LazyApp:
    """Builds the application on a thread; requests for it wait until it is there.

    Importing the framework takes longer than everything else at the start together, and the SQL
    routes do not need it.
    """

    def __init__(self, build: Callable[[], ASGIApp], *, on_failure: Callable[[], None]) -> None:
        self._app: ASGIApp | None = None
        self._build = build
        self._built: asyncio.Future[ASGIApp] | None = None
        self._on_failure = on_failure

    def start(self) -> asyncio.Future[ASGIApp]:
        """Begin to build; a second time it does nothing."""
        if self._built is None:
            self._built = asyncio.get_running_loop().run_in_executor(None, self._build)
            self._built.add_done_callback(self._finished)
        return self._built

    def _finished(self, built: asyncio.Future[ASGIApp]) -> None:
        if not built.cancelled() and built.exception() is not None:
            self._on_failure()

    async def ready(self) -> ASGIApp:
        """The application, once it is there. Raises what building it raised."""
        app: ASGIApp = await asyncio.shield(self.start())
        self._app = app
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await (self._app or await self.ready())(scope, receive, send)
