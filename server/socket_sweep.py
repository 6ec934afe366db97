"""SocketSweep: one timer that pings every WebSocket and drops those that do not answer.

A peer that vanished without a word (a phone in a tunnel, a pulled cable) is found out after one
to two intervals. The sockets are visited in slices, so that ten thousand pings do not go out at
once.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from dosql.limits import SOCKET_PING_S


class Pinged(Protocol):
    """What the sweep does to a socket."""

    sweep_slice: int

    def check(self) -> None:
        """Ping; or give up, if nothing came since the last time."""
        ...


class SocketSweep:
    """The sockets of one server. It belongs to the event loop."""

    def __init__(self, *, interval_s: float = SOCKET_PING_S, slices: int = 25) -> None:
        self._slices: list[set[Pinged]] = [set() for _ in range(slices)]
        self._pause_s = interval_s / slices
        self._now = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many sockets are open."""
        return sum(map(len, self._slices))

    def add(self, socket: Pinged) -> None:
        """Visit it from now on; the first time after a whole interval."""
        socket.sweep_slice = (self._now - 1) % len(self._slices)
        self._slices[socket.sweep_slice].add(socket)

    def discard(self, socket: Pinged) -> None:
        """It is closed. Calling it again does nothing."""
        self._slices[socket.sweep_slice].discard(socket)

    def visit_slice(self) -> None:
        """Check the sockets whose turn it is."""
        for socket in list(self._slices[self._now]):
            socket.check()
        self._now = (self._now + 1) % len(self._slices)

    def visit_all(self) -> None:
        """Check every socket: what a whole interval does."""
        for _ in self._slices:
            self.visit_slice()

    def start(self) -> None:
        """Begin to visit."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """No more visits."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            self.visit_slice()
