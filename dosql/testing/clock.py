"""ManualClock: time that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

SETTLE_ROUNDS = 100
"""Turns of the event loop in which nothing has to happen before `settle` believes it."""


class ManualTimer:
    """See `dosql.clock.Timer`."""

    def __init__(self, clock: ManualClock, at: float, callback: Callable[[], None]) -> None:
        self._clock = clock
        self.at = at
        """When it is due, in seconds of the monotonic clock."""
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._clock._forget_cancelled()


class ManualClock:
    """A clock and its timers (`dosql.clock.Clock` and `Timers`), moved by hand.

    Both clocks stand at their start, and the timers never run, until `advance`. Two runs of the
    same test see the same times and the same order of calls.
    """

    def __init__(self, now_ms: int = 1_767_225_600_000, monotonic: float = 1_000.0) -> None:
        """The default is 2026-01-01T00:00:00Z."""
        self._monotonic = monotonic
        self._wall = now_ms, monotonic
        """What the wall clock showed, and the monotonic one then."""
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._numbers = count()

    # --- as a component sees it -------------------------------------------------------------------

    def now_ms(self) -> int:
        then_ms, then = self._wall
        return then_ms + round((self._monotonic - then) * 1000)

    def monotonic(self) -> float:
        return self._monotonic

    def call_later(self, seconds: float, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(self, self._monotonic + max(0.0, seconds), callback)
        heapq.heappush(self._timers, (timer.at, next(self._numbers), timer))
        return timer

    # --- as a test moves it -----------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let so much time pass; what falls due is called in order, each at its own time.

        What the calls start (tasks, and their timers) runs when the test next awaits: to see all
        of a longer time, use `pass_time`.
        """
        assert seconds >= 0, "time does not go back; set_time moves the wall clock alone"
        end = self._monotonic + seconds
        while (timer := self._next()) is not None and timer.at <= end:
            self._run(timer)
        self._move_to(end)

    async def pass_time(self, seconds: float) -> None:
        """`advance` and `settle`, and again for every time at which something is due."""
        end = self._monotonic + seconds
        await self.settle()
        while (timer := self._next()) is not None and timer.at <= end:
            self._move_to(timer.at)
            while (due := self._next()) is not None and due.at <= self._monotonic:
                self._run(due)
            await self.settle()
        self._move_to(end)

    def set_time(self, now_ms: int) -> None:
        """Let the wall clock jump, back or forth; the monotonic one, and the timers, do not."""
        self._wall = now_ms, self._monotonic

    async def settle(self) -> None:
        """Give the event loop the time to run all that can run without time passing.

        It cannot know of work on threads, or of the network.
        """
        for _ in range(SETTLE_ROUNDS):
            await asyncio.sleep(0)

    @property
    def pending(self) -> list[float]:
        """In how many seconds each timer is due, in order."""
        timers = sorted(self._timers)
        return [at - self._monotonic for at, _, timer in timers if timer.callback is not None]

    # --- inside -----------------------------------------------------------------------------------

    def _next(self) -> ManualTimer | None:
        self._forget_cancelled()
        return self._timers[0][2] if self._timers else None

    def _forget_cancelled(self) -> None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)

    def _run(self, timer: ManualTimer) -> None:
        heapq.heappop(self._timers)
        self._move_to(timer.at)
        callback, timer.callback = timer.callback, None
        assert callback is not None
        callback()

    def _move_to(self, monotonic: float) -> None:
        self._monotonic = max(self._monotonic, monotonic)
