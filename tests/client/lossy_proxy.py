"""A TCP proxy before a real server that breaks connections at chosen moments."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class LossyProxy:
    """Forwards everything, except that it loses replies when told to.

    A lost reply is one that the server sent and the client never gets: the connection closes
    in its place.
    """

    def __init__(self, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.replies_to_lose = 0
        self.replies_lost = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            to_server, from_server = await self._connect()
            await self._pump(reader, writer, to_server, from_server)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
        from_server, to_server = await asyncio.open_connection(*self._target)
        return to_server, from_server

    async def _pump(
        self,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
    ) -> None:
        async def requests() -> None:
            while data := await from_client.read(65_536):
                to_server.write(data)
                await to_server.drain()

        async def replies() -> None:
            while data := await from_server.read(65_536):
                if self.replies_to_lose > 0:
                    self.replies_to_lose -= 1
                    self.replies_lost += 1
                    return
                to_client.write(data)
                await to_client.drain()

        tasks = [asyncio.create_task(requests()), asyncio.create_task(replies())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await task
            to_server.close()
