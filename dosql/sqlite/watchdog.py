"""Watchdog: interrupts statements on worker threads at their deadline.

The progress handler looks every so many steps of a program; a step may take a second when its
values are large. An interrupt is seen at the next jump, whatever the number of steps.
"""

from __future__ import annotations

import heapq
import threading
import time
import weakref
from itertools import count
from typing import Protocol

_AGAIN_S = 0.25
"""An interrupt between two statements is lost, so an overdue connection is told again."""


class Watched(Protocol):
    """A connection whose deadline the watchdog knows."""

    watch: int
    """Which deadline holds now: another number, and the watchdog lets go."""

    def stop_overdue(self) -> None:
        """Interrupt what runs, if it is past the deadline."""
        ...


class Watchdog:
    """One thread for the whole process, started when it is first needed. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, int, weakref.ref[Watched]]] = []
        self._numbers = count(1)
        self._thread: threading.Thread | None = None

    def watch(self, connection: Watched, seconds: float) -> None:
        """From so many seconds on, tell the connection, until its ``watch`` changes."""
        number = connection.watch = next(self._numbers)
        self._put(time.monotonic() + seconds, number, weakref.ref(connection))
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="dosql-watchdog", daemon=True
                )
                self._thread.start()

    def _put(self, at: float, number: int, connection: weakref.ref[Watched]) -> None:
        with self._changed:
            heapq.heappush(self._due, (at, next(self._numbers), number, connection))
            if self._due[0][0] == at:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            at, number, reference = self._next()
            connection = reference()
            if connection is not None and connection.watch == number:
                connection.stop_overdue()
                self._put(at + _AGAIN_S, number, reference)
            del connection

    def _next(self) -> tuple[float, int, weakref.ref[Watched]]:
        with self._changed:
            while not self._due or self._due[0][0] > time.monotonic():
                self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
            at, _, number, reference = heapq.heappop(self._due)
            return max(at, time.monotonic()), number, reference


WATCHDOG = Watchdog()
