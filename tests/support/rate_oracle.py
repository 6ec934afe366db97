"""An oracle of the five rate rules: the definitions in exact fractions, no SQL, nothing shared.

It keeps every hit that ever counted and works the answer out from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor


@dataclass
class Answer:
    allowed: bool
    remaining: int
    reset: int
    retry: int


@dataclass
class LogOracle:
    """Never more than ``limit`` in any stretch of ``window``."""

    limit: int
    window: int
    hits: list[int] = field(default_factory=list)
    """The time of each unit."""

    def hit(self, now: int, cost: int) -> Answer:
        live = sorted(t for t in self.hits if t > now - self.window)
        retry = 0
        if allowed := len(live) + cost <= self.limit:
            live += [now] * cost
        self.hits = live = [min(t, now) for t in live]
        if not allowed:
            leave = len(live) + cost - self.limit
            retry = sorted(live)[leave - 1] + self.window - now
        reset = max(live) + self.window - now if live else 0
        return Answer(allowed, self.limit - len(live), reset, retry)


@dataclass
class FixedOracle:
    """A window begins with its first unit."""

    limit: int
    window: int
    started: int | None = None
    used: int = 0

    def hit(self, now: int, cost: int) -> Answer:
        if self.started is None or now >= self.started + self.window:
            started, used = now, 0
        else:
            started, used = min(self.started, now), self.used
        allowed = used + cost <= self.limit
        if allowed or (self.used and self.started is not None and now < self.started + self.window):
            self.started, self.used = started, used + cost * allowed
        left = started + self.window - now
        remaining = self.limit - (used + cost * allowed)
        return Answer(allowed, remaining, left, 0 if allowed else left)


@dataclass
class SlidingOracle:
    """Windows in a row, beginning with the first unit after a pause of a whole window; a window
    before counts with the part of it that is still less than one window ago."""

    limit: int
    window: int
    started: int | None = None
    counts: dict[int, int] = field(default_factory=dict)
    """Units by the number of the window since ``started``."""

    def _load(self, now: int) -> Fraction:
        assert self.started is not None
        number, gone = divmod(now - self.started, self.window)
        before = self.counts.get(number - 1, 0)
        share = 1 - Fraction(gone, self.window)
        return before * share + self.counts.get(number, 0)

    def hit(self, now: int, cost: int) -> Answer:
        if self.started is not None:
            newest = self.started + max(self.counts, default=0) * self.window
            if now < newest:  # set back: that window begins now
                self.started -= newest - now
            elif now >= newest + 2 * self.window:
                self.started = None
        if self.started is None:
            self.started, self.counts = now, {}
        number = (now - self.started) // self.window
        allowed = self._load(now) + cost <= self.limit
        if allowed:
            self.counts[number] = self.counts.get(number, 0) + cost
        remaining = max(0, floor(self.limit - self._load(now)))
        ends = self.started + (number + 1) * self.window
        return Answer(allowed, remaining, ends - now, 0 if allowed else self._first(now, cost))

    def _first(self, now: int, cost: int) -> int:
        """By bisection: from a moment without hits on, the load only falls."""
        low, high = now, now + 2 * self.window
        while low < high:
            middle = (low + high) // 2
            if self._load(middle) + cost <= self.limit:
                high = middle
            else:
                low = middle + 1
        return low - now


@dataclass
class BucketOracle:
    """Tokens come back evenly: ``limit`` in ``window``, up to ``capacity``. Both buckets: what is
    missing in the one is what has not leaked from the other."""

    limit: int
    window: int
    capacity: int
    leaky: bool
    """Set back, the clock stands still for the one; the other forgets what lies beyond full."""
    tokens: Fraction | None = None
    at: int = 0

    def hit(self, now: int, cost: int) -> Answer:
        rate = Fraction(self.limit, self.window)
        tokens = Fraction(self.capacity) if self.tokens is None else self.tokens
        gone = now - self.at
        if self.tokens is None:
            gone = 0
        if self.leaky:
            tokens = max(Fraction(0), min(Fraction(self.capacity), tokens + gone * rate))
        else:
            tokens = min(Fraction(self.capacity), tokens + max(0, gone) * rate)
        allowed = tokens >= cost
        tokens -= cost * allowed
        if allowed or self.leaky:
            self.tokens, self.at = tokens, now
        elif gone < 0:
            self.at = now
        reset = ceil((self.capacity - tokens) / rate)
        return Answer(allowed, floor(tokens), reset, 0 if allowed else ceil((cost - tokens) / rate))
