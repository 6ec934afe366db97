"""Many idle WebSockets on many hibernated objects in one server process, and what they cost.

``python -m tests.scale.idle_sockets [--sockets 10000] [--objects 1000] [--broadcast 1000]`` prints
the figures of docs/websockets.md. The clients are in this process, the server in another; both
share the machine, and delays are measured by the machine's one monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop

from tests.support.raw_sockets import RawSocket
from tests.support.server import ADMIN_TOKEN, ServerProcess

_TOKEN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
_IDLE_SECONDS = 1.0
_AT_ONCE = 50
ROUNDS = 20
WAKES_MAX = 300
_PADDING = "x" * 180


@dataclass(frozen=True)
class Member:
    """One client."""

    hall: str
    user: str
    socket: RawSocket


@dataclass
class Figures:
    """Times in seconds, memory in KB."""

    sockets: int
    objects: int
    server_kb: int
    """Resident, before the first object."""
    kb_per_object: float
    """With one idle socket, hibernated."""
    kb_per_socket: float
    """Each further one of a hibernated object."""
    total_kb: int
    awake: int
    """Objects that are in memory although all are idle."""
    wakes: list[float] = field(default_factory=list[float])
    """From sending to a hibernated object to its answer."""
    echoes: list[float] = field(default_factory=list[float])
    """The same, awake."""
    broadcast_to: int = 0
    broadcasts: list[float] = field(default_factory=list[float])
    """From the sender to each receiver."""
    stored_broadcasts: list[float] = field(default_factory=list[float])
    """The same with a message that is stored and durable first."""
    lost: int = 0
    """Sockets that did not stay open from their handshake to the end."""
    strangers: int = 0
    """Sockets whose attachment was another one, or none, after a hibernation."""

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.sockets:,} idle sockets on {self.objects:,} hibernated objects "
            f"({self.awake} awake): {self.total_kb / 1024:.0f} MB resident, "
            f"{self.server_kb / 1024:.0f} MB of it before the first object",
            f"  per object with its first socket: {self.kb_per_object:.1f} KB",
            f"  per further socket:               {self.kb_per_socket:.1f} KB",
            f"wake on message ({len(self.wakes)} objects):  {_times(self.wakes)}",
            f"the same object awake:         {_times(self.echoes)}",
            f"broadcast to {self.broadcast_to:,}:            {_times(self.broadcasts)}",
            f"broadcast of a stored message: {_times(self.stored_broadcasts)}",
        ]


def quantile(times: Sequence[float], share: float) -> float:
    """Of the sorted times."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _times(times: Sequence[float]) -> str:
    p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
    return f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"


def measure(data_dir: Path, *, sockets: int, objects: int, broadcast_to: int) -> Figures:
    """Start a server, load it, and look."""
    server = ServerProcess(
        data_dir,
        app="tests.support.socket_app:app",
        idle_seconds=_IDLE_SECONDS,
        max_open=objects + 100,
        log_level="warning",
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Load(server).run(sockets, objects, broadcast_to))
    finally:
        server.kill()


class _Load:
    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        url = urlsplit(server.url)
        assert url.hostname is not None and url.port is not None
        self._host, self._port = url.hostname, url.port
        self._members: list[Member] = []
        self._numbers = itertools.count()
        self._arrived: list[tuple[float, bytes]] = []
        self._news = asyncio.Event()

    async def run(self, sockets: int, objects: int, broadcast_to: int) -> Figures:
        await self._connect(["warm-up"])
        await self._asleep(0)
        before = self._rss_kb()
        names = [f"hall-{number}" for number in range(objects)]
        await self._connect(names)
        await self._asleep(0)
        one_each = self._rss_kb()
        rest = [names[number % objects] for number in range(sockets - objects)]
        await self._connect(rest)
        awake = await self._asleep(0)
        total = self._rss_kb()
        figures = Figures(
            sockets,
            objects,
            before,
            (one_each - before) / objects,
            (total - one_each) / max(1, sockets - objects),
            total,
            awake,
        )
        firsts = self._members[1 : 1 + min(objects, WAKES_MAX)]  # of as many halls
        for member in firsts:
            figures.wakes.append(await self._echo(member))
            figures.echoes.append(await self._echo(member))
        await self._asleep(0)
        for member in (*firsts, *self._members[-WAKES_MAX:]):
            answer = await self._ask(member, "who")
            figures.strangers += not answer.startswith(f"{member.user} of ")
        await self._broadcast(figures, broadcast_to)
        figures.lost = sum(member.socket.lost.done() for member in self._members)
        for member in self._members:
            member.socket.transport.abort()
        return figures

    async def _broadcast(self, figures: Figures, count: int) -> None:
        await self._connect(["big-hall"] * count)
        sender = self._members[-1].socket
        figures.broadcast_to = count
        for word, times in (("all", figures.broadcasts), ("say", figures.stored_broadcasts)):
            for _ in range(ROUNDS):
                times += await self._tell_all(sender, word, count)

    async def _tell_all(self, sender: RawSocket, word: str, count: int) -> list[float]:
        self._arrived.clear()
        began = time.monotonic()
        sender.send(f"{word} {_PADDING}")
        await self._until(lambda: len(self._arrived) == count)
        return [at - began for at, _ in self._arrived]

    async def _echo(self, member: Member) -> float:
        began = time.monotonic()
        assert await self._ask(member, "echo hello") == "hello"
        return self._arrived[0][0] - began

    async def _ask(self, member: Member, text: str) -> str:
        self._arrived.clear()
        member.socket.send(text)
        await self._until(lambda: bool(self._arrived))
        return self._arrived[0][1].decode()

    async def _connect(self, names: Sequence[str]) -> None:
        for first in range(0, len(names), _AT_ONCE):
            batch = [self._open(name) for name in names[first : first + _AT_ONCE]]
            self._members += await asyncio.gather(*batch)

    async def _open(self, hall: str) -> Member:
        number = next(self._numbers)
        # 127.0.0.2 and so on: one source address has ports for 28,000 connections only.
        source = f"127.0.0.{2 + number // 20_000}"
        user = f"user-{number}"
        path = f"/objects/hall/{hall}/ws?name={user}"
        socket = await RawSocket.connect(
            self._host,
            self._port,
            path,
            headers=_TOKEN,
            on_message=self._on_message,
            source=source,
        )
        assert b" 101 " in socket.head, socket.head + socket.rest
        return Member(hall, user, socket)

    def _on_message(self, socket: RawSocket, opcode: int, payload: bytes) -> None:
        if opcode == 1:
            self._arrived.append((time.monotonic(), payload))
            self._news.set()

    async def _until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not met():
                self._news.clear()
                await self._news.wait()

    async def _asleep(self, allowed: int) -> int:
        """Wait until so few objects are in memory; how many are."""
        return await _poll(self._awake, lambda awake: awake <= allowed)

    async def _awake(self) -> int:
        infos: list[dict[str, Any]] = []
        cursor = ""
        while True:
            path = f"/admin/objects/hall?limit=1000{cursor}"
            reply = await asyncio.to_thread(self._server.request, "GET", path)
            page = reply.json()
            infos += page["objects"]
            if page.get("cursor") is None:
                assert len(infos) == len({member.hall for member in self._members})
                assert sum(info["sockets"] for info in infos) == len(self._members)
                return sum(info["state"] == "awake" for info in infos)
            cursor = f"&cursor={page['cursor']}"

    def _rss_kb(self) -> int:
        return psutil.Process(self._server.process.pid).memory_info().rss // 1024


async def _poll(look: Callable[[], Awaitable[int]], met: Callable[[int], bool]) -> int:
    ends_at = time.monotonic() + 60
    while not met(seen := await look()):
        assert time.monotonic() < ends_at, f"waited in vain: {seen}"
        await asyncio.sleep(0.2)
    return seen


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--objects", type=int, default=1_000)
    parser.add_argument("--broadcast", type=int, default=1_000)
    options = parser.parse_args()
    raise_descriptors()
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(
            Path(directory) / "data",
            sockets=options.sockets,
            objects=options.objects,
            broadcast_to=options.broadcast,
        )
    print("\n".join(figures.lines()))
    return 0


def raise_descriptors() -> None:
    """As many descriptors as this process may have; its children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
