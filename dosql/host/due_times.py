"""DueTimes: which object is due next, by the wall clock; one timer for all of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from dosql.clock import Clock, Timer, Timers
from dosql.log.records import ObjectKey

_SECONDS_MIN = 0.01
"""A timer may fire a moment before the wall clock shows the time: no busy loop then."""


class DueTimes:
    """Belongs to the event loop. What is planned cannot be taken back: whoever is told that an
    object is due looks whether it still is."""

    def __init__(self, clock: Clock, timers: Timers, on_due: Callable[[], None]) -> None:
        """``on_due`` is called when something is due; it is to `take` that."""
        self._clock = clock
        self._timers = timers
        self._on_due = on_due
        self._heap: list[tuple[int, int, ObjectKey]] = []
        self._numbers = itertools.count()
        self._timer: Timer | None = None
        self._timer_ms = 0
        self._paused_until_ms = 0
        self._stopped = False

    def add(self, due_ms: int, key: ObjectKey) -> None:
        """The object is due then, beside what was planned before."""
        heapq.heappush(self._heap, (due_ms, next(self._numbers), key))
        self._arm()

    def take(self) -> list[ObjectKey]:
        """Those that are due, once for each time that they were planned."""
        now_ms = self._clock.now_ms()
        taken: list[ObjectKey] = []
        while self._heap and self._heap[0][0] <= now_ms >= self._paused_until_ms:
            taken.append(heapq.heappop(self._heap)[2])
        return taken

    def pause(self, ms: int) -> None:
        """Nothing is due for so long."""
        self._paused_until_ms = self._clock.now_ms() + ms

    def stop(self) -> None:
        """Nothing is due any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._stopped or not self._heap:
            return
        due_ms = max(self._heap[0][0], self._paused_until_ms)
        if self._timer is not None:
            if self._timer_ms <= due_ms:
                return
            self._timer.cancel()
        self._timer_ms = due_ms
        seconds = max(_SECONDS_MIN, (due_ms - self._clock.now_ms()) / 1000)
        self._timer = self._timers.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._on_due()
        self._arm()
