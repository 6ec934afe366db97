"""Time and randomness, passed in wherever they are needed.

This is the only file that reads the real ones: the linter bans ``time.time``, ``datetime.now``
and ``random`` everywhere else, so that a test can drive time by hand.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a component may know of time."""

    def now_ms(self) -> int:
        """Wall clock, integer milliseconds since the Unix epoch; it may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; it never goes back. For deadlines and durations."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class Timer(Protocol):
    """One call that is to come."""

    def cancel(self) -> None:
        """Do not make it; nothing if it was made."""
        ...


class Timers(Protocol):
    """Calls at a later time, on the event loop."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, ``seconds`` of the monotonic clock from now; 0 or less: soon,
        but never within this call."""
        ...


class LoopTimers:
    """Those of the running event loop."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        import asyncio  # a third of the start-up time of the command line, which has no timers

        return asyncio.get_running_loop().call_later(seconds, callback)


class Randomness(Protocol):
    """Where ids and secrets come from."""

    def token_bytes(self, count: int) -> bytes:
        """``count`` unpredictable bytes."""
        ...

    def token_urlsafe(self, count: int) -> str:
        """``count`` unpredictable bytes as URL-safe base64 text."""
        ...


class SystemRandomness:
    """The operating system's generator, fit for secrets."""

    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def token_urlsafe(self, count: int) -> str:
        return secrets.token_urlsafe(count)


def jitter(low: float, high: float) -> float:
    """A random number in [low, high), for spreading retries; not for secrets."""
    return random.uniform(low, high)


def iso_from_ms(ms: int) -> str:
    """RFC 3339 text in UTC with milliseconds, for example ``2026-01-31T12:00:00.000Z``."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
