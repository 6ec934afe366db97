"""Door: the public entrance of an app, for every path that the server has no route of its own for.

Nobody is asked for a token here: the program decides who may enter. It is either the handler that
`App.fetch` registered or the ASGI application that `App.mount` was given.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable

from dosql.errors import InvalidRequestError, NotFoundError
from dosql.fetch import Response
from dosql.objects.app import App
from server.asgi import Receive, Scope, Send
from server.context import context_of
from server.exchange import Answer, request_of
from server.lifespan import Lifespan
from server.object_routes import FORWARD, Forward
from server.shown_errors import shown_error

ROUTE = "app"
"""What stands in logs and metrics for the app's own paths."""
_NOTHING: frozenset[bytes] = frozenset()
_log = logging.getLogger("dosql.app")


class Door:
    """``forward`` is what a mounted application's ``stub.forward`` uses."""

    def __init__(self, app: App, *, answer: Answer, forward: Forward) -> None:
        self._app = app
        self._answer = answer
        self._forward = forward
        self._lifespan: Lifespan | None = None
        self._background: set[asyncio.Task[object]] = set()

    async def open(self) -> None:
        """Start what is mounted.

        Raises:
            InvalidRequestError: ``app_invalid``: it refuses to start.
        """
        self._lifespan = await _started(self._app)

    async def close(self, seconds: float) -> None:
        """Wait for what `FetchContext.wait_until` was given, then stop what is mounted."""
        if self._background:
            _, late = await asyncio.wait(self._background, timeout=seconds)
            for task in late:
                task.cancel()
        if self._lifespan is not None:
            await self._lifespan.stop(seconds)
            self._lifespan = None

    async def replace(self, app: App, seconds: float) -> None:
        """Let a new version of the app answer from now on.

        Raises:
            InvalidRequestError: ``app_invalid``: it refuses to start; the old one goes on.
        """
        started = await _started(app)
        old, self._lifespan, self._app = self._lifespan, started, app
        if old is not None:
            await old.stop(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors are raised, for the edge to answer."""
        context = context_of(scope)
        context.route = ROUTE
        app = self._app
        if app.mounted is not None:
            context.from_app = True
            await app.mounted({**scope, FORWARD: self._forward}, receive, send)
            return
        if app.fetch_handler is None:
            raise NotFoundError("Not found")
        request = await request_of(scope, receive, hide=_NOTHING)
        ctx = _Context(context.request_id, self._background)
        try:
            response = app.fetch_handler(request, app.env, ctx)
            if inspect.isawaitable(response):
                response = await response
            if not isinstance(response, Response):
                raise InvalidRequestError(
                    f"The fetch handler returned {type(response).__name__}, not a Response.",
                    code="invalid_response",
                )
        except Exception as exc:
            raise shown_error(exc) from exc
        await self._answer(response, scope, receive, send)


async def _started(app: App) -> Lifespan | None:
    if app.mounted is None:
        return None
    lifespan = Lifespan(app.mounted)
    await lifespan.start()
    return lifespan


class _Context:
    """Implements `FetchContext`."""

    def __init__(self, request_id: str, background: set[asyncio.Task[object]]) -> None:
        self.request_id = request_id
        self._background = background

    def wait_until(self, awaitable: Awaitable[object]) -> None:
        """Let this go on after the reply. What it raises is logged."""

        async def run() -> None:
            try:
                await awaitable
            except Exception:
                _log.exception("wait_until of request %s failed", self.request_id)

        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
