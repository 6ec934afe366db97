"""Inbox: events of one socket on their way to its object."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dosql.errors import ObjectResetError
from dosql.limits import SOCKET_READ_AHEAD_MAX

if TYPE_CHECKING:
    from dosql.objects.connections import Connection, Deliver, SocketEvent

_LIVES_MAX = 10
"""How many lives of the object may be reset before one event has begun in any of them: an object
that fails at every start must not be woken for ever."""


class Inbox:
    """Starts the events one after the other; it exists only while there are any.

    An event that has not begun when its object is reset goes to the object's next life. After one
    that could not be delivered nothing starts any more but the close event.
    """

    __slots__ = ("_connection", "_deliver", "_failed", "_full", "_running", "_starting", "_waiting")

    def __init__(self, connection: Connection, deliver: Deliver) -> None:
        self._connection = connection
        self._deliver = deliver
        self._waiting: deque[SocketEvent] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._starting = False
        self._full = False
        self._failed = False

    def offer(self, event: SocketEvent) -> None:
        """Start it, or queue it behind those that have not started yet."""
        if self._failed and not event.is_last:
            return
        self._waiting.append(event)
        if not self._starting:
            self._start_next()
        self._watch_level()

    def _start_next(self) -> None:
        if not self._waiting:
            return
        self._starting = True
        run = self._run(self._waiting.popleft())
        task = asyncio.get_running_loop().create_task(run)
        self._running.add(task)
        task.add_done_callback(self._done)

    async def _run(self, event: SocketEvent) -> None:
        has_started = False

        def started() -> None:
            nonlocal has_started
            if not has_started:
                has_started = True
                self._starting = False
                self._start_next()

        try:
            await self._delivered(event, started)
        except Exception as error:
            self._lost(error)
        finally:
            self._connection.ended(event)
            started()

    async def _delivered(self, event: SocketEvent, started: Callable[[], None]) -> None:
        for _ in range(_LIVES_MAX - 1):
            try:
                await self._deliver(self._connection, event, started)
            except ObjectResetError:
                if self._connection.is_dropped:
                    raise
            else:
                return
        await self._deliver(self._connection, event, started)

    def _lost(self, error: Exception) -> None:
        self._failed = True
        kept = [event for event in self._waiting if event.is_last]
        self._waiting = deque(kept)
        self._connection.undeliverable(error)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._watch_level()
        if not self._running and not self._waiting and not self._failed:
            self._connection.idle()

    def _watch_level(self) -> None:
        level = len(self._running) + len(self._waiting)
        if self._full != (level >= SOCKET_READ_AHEAD_MAX):
            self._full = not self._full
            self._connection.congested(self._full)
