"""Lifespan: the start and the end of a mounted ASGI application, as ASGI has them."""

from __future__ import annotations

import asyncio
import logging

from dosql.errors import InvalidRequestError
from server.asgi import ASGIApp, Message

_log = logging.getLogger("dosql.app")


class Lifespan:
    """One start and one stop. An application that knows no lifespan is started all the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._replies: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Tell it to start, and wait until it has.

        Raises:
            InvalidRequestError: ``app_invalid``: it says that it cannot.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        reply = await self._ask("startup")
        if reply is not None and reply["type"].endswith(".failed"):
            await self._task
            raise InvalidRequestError(
                f"The mounted application refuses to start: {reply.get('message') or 'no reason'}",
                code="app_invalid",
            )

    async def stop(self, seconds: float) -> None:
        """Tell it to stop, and wait for it, but no longer than so many seconds."""
        if self._task is None or self._task.done():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._ask("shutdown")
        except TimeoutError:
            _log.warning("the mounted application took too long to stop")
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _ask(self, what: str) -> Message | None:
        """Its reply; None if it has ended, or knows no lifespan."""
        assert self._task is not None
        await self._inbox.put({"type": f"lifespan.{what}"})
        replying = asyncio.get_running_loop().create_task(self._replies.get())
        await asyncio.wait([replying, self._task], return_when=asyncio.FIRST_COMPLETED)
        if replying.done() or not self._replies.empty():
            return await replying
        replying.cancel()
        return None

    async def _run(self, scope: Message) -> None:
        try:
            await self._app(scope, self._inbox.get, self._replies.put)
        except Exception as exc:  # many applications refuse what is not HTTP by raising
            _log.debug("the mounted application has no lifespan", exc_info=exc)
