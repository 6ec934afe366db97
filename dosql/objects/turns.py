"""Turns: an object's events run one at a time, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque

from dosql.errors import OverloadedError
from dosql.limits import TURN_QUEUE_MAX, TURN_WAIT_S_MAX


class Turns:
    """A fair mutex with a bounded queue and a bounded wait.

    ``try_enter`` and ``leave`` are synchronous, so that an event without an ``await`` costs
    neither a task switch nor a lock.
    """

    def __init__(
        self, *, queue_max: int = TURN_QUEUE_MAX, wait_s_max: float = TURN_WAIT_S_MAX
    ) -> None:
        self._held = False
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._queue_max = queue_max
        self._wait_s_max = wait_s_max

    @property
    def busy(self) -> bool:
        """Whether an event is running."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many events wait."""
        return len(self._waiters)

    def try_enter(self) -> bool:
        """Take the turn if it is free. Whoever got it must `leave`."""
        if self._held:
            return False
        self._held = True
        return True

    async def enter(self, *, bounded: bool = True) -> None:
        """Wait for the turn. Unless ``bounded``, as long as it takes: for an event that has
        begun already and only goes on.

        Raises:
            OverloadedError: ``object_overloaded``: too many wait already; ``object_busy``: the
                wait took too long. The turn is not held then, nor after a cancellation.
        """
        if self.try_enter():
            return
        if bounded and len(self._waiters) >= self._queue_max:
            raise OverloadedError("Too many calls wait for this object.", retry_after_s=1)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(self._wait_s_max, _expire, waiter) if bounded else None
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.leave()  # granted in the same moment
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def leave(self) -> None:
        """Hand the turn to the one who waited longest."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._held = False


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(
            OverloadedError(
                "The call waited too long for this object.", code="object_busy", retry_after_s=1
            )
        )
