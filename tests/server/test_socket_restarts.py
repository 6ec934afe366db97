"""The server ends, or is killed, again and again under clients that connect again."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from dosql.client import AsyncClient, Client, Reconnect
from dosql.errors import UnavailableError
from tests.support.server import ServerProcess

APP = "tests.support.journal_app:app"
SOON = Reconnect(delay_s_first=0.02, delay_s_max=0.1)
WRITERS = ("ada", "bob", "cyd", "dan")
EACH = 100
TOTAL = len(WRITERS) * EACH


class Follower:
    """What one client heard, and how it goes on after a break."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def resume(self, last: str | bytes | None) -> dict[str, str]:
        """Parameters of the next connection."""
        return {"after": self.heard[-1].partition(" ")[0] if self.heard else "0"}

    @property
    def is_done(self) -> bool:
        return len(self.heard) >= TOTAL


class Writer(Follower):
    """Says its next entry when it hears the one before, and again after a break."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.said = 0
        self.connections = 0

    async def run(self, client: AsyncClient, progress: Progress) -> None:
        stub = client.namespace("journal").get_by_name("shared")
        async with stub.connect(reconnect=SOON, resume=self.resume) as ws:
            while not self.is_done:
                message = await ws.receive()
                assert isinstance(message, str)
                if message != "ready":
                    self.heard.append(message)
                    if message.split()[1] != self.name:
                        continue
                    self.said += 1
                    progress.one_more()
                if self.said < EACH:
                    await progress.allowed()
                    try:
                        await ws.send(f"{self.name} {self.said}")
                    except UnavailableError:
                        continue  # "ready" comes with the next connection
            self.connections = ws.connections


class Progress:
    """How many entries came back to their writers. At some counts something happens."""

    def __init__(self) -> None:
        self._count = 0
        self._count_max = TOTAL
        self._moved = asyncio.Event()
        self._reached: dict[int, Callable[[], None]] = {}

    def at(self, count: int, action: Callable[[], None]) -> None:
        """Call ``action`` in the moment, and let writers go only a little further."""
        self._reached[count] = action
        self._allow(count + TOTAL // 10)

    def one_more(self) -> None:
        self._count += 1
        action = self._reached.pop(self._count, None)
        if action is not None:
            action()

    def go_on(self) -> None:
        """Let writers go as far as they like."""
        self._allow(TOTAL)

    async def allowed(self) -> None:
        """Return when one more may be written."""
        while self._count >= self._count_max:
            self._moved.clear()
            await self._moved.wait()

    def _allow(self, count_max: int) -> None:
        self._count_max = count_max
        self._moved.set()


def follow(server: ServerProcess, follower: Follower) -> None:
    """The synchronous client, which only listens."""
    with (
        Client(server.url, token=server.admin_token) as client,
        client.namespace("journal")
        .get_by_name("shared")
        .connect(reconnect=SOON, resume=follower.resume) as ws,
    ):
        while not follower.is_done:
            message = ws.receive()
            if isinstance(message, str) and message != "ready":
                follower.heard.append(message)


async def test_restarts_and_crashes_lose_repeat_and_disorder_nothing_for_any_client(
    tmp_path: Path,
) -> None:
    """Four writers at once; the server is killed, stopped, and killed under them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ServerProcess(tmp_path / "data", app=APP, listen=f"127.0.0.1:{port}")
    writers = [Writer(name) for name in WRITERS]
    follower, progress = Follower(), Progress()
    try:
        async with AsyncClient(server.url, token=server.admin_token) as client:
            listening = asyncio.create_task(asyncio.to_thread(follow, server, follower))
            work: list[asyncio.Task[None]] = []
            for number, end in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL), 1):
                sent = asyncio.Event()

                def strike(end: int = end, sent: asyncio.Event = sent) -> None:
                    server.process.send_signal(end)  # with entries of the others on their way
                    sent.set()

                progress.at(number * TOTAL // 4, strike)
                if not work:
                    work = [asyncio.create_task(each.run(client, progress)) for each in writers]
                await asyncio.wait_for(sent.wait(), 60)
                await asyncio.to_thread(server.process.wait)
                server.kill()  # what is left of it on our side
                await asyncio.to_thread(server.restart)
            progress.go_on()
            await asyncio.wait_for(asyncio.gather(listening, *work), 60)
            stored = await client.namespace("journal").get_by_name("shared").entries()
    finally:
        server.kill()
    assert len(stored) == TOTAL
    for each in (*writers, follower):
        assert each.heard == stored, "each entry once, in order, without a gap"
    for writer in writers:
        counts = [entry.split()[2] for entry in stored if entry.split()[1] == writer.name]
        assert counts == [str(number) for number in range(EACH)]
        assert writer.connections == 4
