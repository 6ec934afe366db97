"""Rate rules: how much of something may be had, and what one check of that found.

All arithmetic is exact: integers, milliseconds, nothing rounded but in favour of the limit.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from dosql.errors import InvalidRequestError

Algorithm: TypeAlias = Literal["fixed", "log", "sliding", "bucket", "gcra"]

LIMIT_MAX = 1_000_000
"""The epoch in milliseconds times this still fits 64 bits."""
LOG_LIMIT_MAX = 1_000
"""A sliding log has a row per hit, and counts them at each."""
WINDOW_MS_MIN = 1
WINDOW_MS_MAX = 31 * 24 * 60 * 60 * 1_000


class Rule(msgspec.Struct, frozen=True):
    """``limit`` units in ``window_ms``, by one of five algorithms:

    - ``fixed``: a window begins with the first unit; in it there are ``limit``.
    - ``log``: never more than ``limit`` in any stretch of ``window_ms``.
    - ``sliding``: windows as ``fixed``, and the part of the window before that is still less than
      ``window_ms`` ago counts too, as if its units had come evenly.
    - ``bucket``: a bucket of ``burst`` tokens; ``limit`` come back in ``window_ms``, evenly.
    - ``gcra``: a bucket of ``burst`` units that leaks ``limit`` in ``window_ms``, as one time.
    """

    algorithm: Algorithm
    limit: int
    window_ms: int
    burst: int = 0
    """Of the two buckets; 0: as ``limit``."""

    def __post_init__(self) -> None:
        most = LOG_LIMIT_MAX if self.algorithm == "log" else LIMIT_MAX
        _check("limit", self.limit, 1, most)
        _check("window", self.window_ms, WINDOW_MS_MIN, WINDOW_MS_MAX)
        _check("burst", self.burst, 0, LIMIT_MAX)

    @property
    def capacity(self) -> int:
        """What can be had at once, at most."""
        if self.algorithm in ("bucket", "gcra"):
            return self.burst or self.limit
        return self.limit

    @property
    def memory_ms(self) -> int:
        """After so long without a hit nothing of it matters any more."""
        if self.algorithm in ("bucket", "gcra"):
            return -(-self.capacity * self.window_ms // self.limit)
        return self.window_ms * (2 if self.algorithm == "sliding" else 1)


class Verdict(msgspec.Struct, frozen=True):
    """What a check found; if it was denied it changed nothing."""

    allowed: bool
    limit: int
    """What can be had at once, at most."""
    remaining: int
    """What could be had now."""
    reset_ms: int
    """From now until everything could be had, if nobody comes meanwhile; of ``sliding``, until
    its window ends: what was used in that counts less and less from then on."""
    retry_after_ms: int = 0
    """From now until the same check is allowed, if nobody comes meanwhile: exactly then, and not
    a millisecond before. 0: it was."""

    @property
    def reset_s(self) -> int:
        """In whole seconds, rounded up."""
        return -(-self.reset_ms // 1_000)

    @property
    def retry_after_s(self) -> int:
        """In whole seconds, rounded up: waiting so long is enough, a second less is not."""
        return -(-self.retry_after_ms // 1_000)


class Window(msgspec.Struct, frozen=True):
    """State of ``fixed`` and ``sliding`` as of some moment."""

    started: int
    used: int
    before: int = 0
    """Units of the window before this one."""


def fixed_verdict(rule: Rule, window: Window, now: int, cost: int, *, allowed: bool) -> Verdict:
    """``window`` is the one that holds ``now``, the hit included if it was allowed."""
    left = window.started + rule.window_ms - now
    remaining = rule.limit - window.used
    reset = left if window.used else 0
    return Verdict(allowed, rule.limit, remaining, reset, 0 if allowed else left)


def sliding_verdict(rule: Rule, window: Window, now: int, cost: int, *, allowed: bool) -> Verdict:
    """``window`` is the one that holds ``now``, the hit included if it was allowed."""
    width, gone = rule.window_ms, now - window.started
    free = (rule.limit - window.used) * width - window.before * (width - gone)
    reset = width - gone if window.used or window.before else 0
    retry = 0 if allowed else _sliding_wait(rule, window, cost) - gone
    return Verdict(allowed, rule.limit, max(0, free // width), reset, retry)


def _sliding_wait(rule: Rule, window: Window, cost: int) -> int:
    """From the start of the window until a hit is allowed."""
    width = rule.window_ms
    spare = rule.limit - window.used - cost
    if spare >= 0:  # when enough of the window before has slid out
        return width - spare * width // window.before if window.before else 0
    # This window is the one before, then; there ``used`` is at least one.
    return 2 * width - (rule.limit - cost) * width // window.used


def bucket_verdict(rule: Rule, tokens: int, cost: int, *, allowed: bool) -> Verdict:
    """``tokens`` there are now, in units of 1/window_ms, of which ``limit`` come each ms."""
    width, capacity = rule.window_ms, rule.capacity
    reset = _ceil(capacity * width - tokens, rule.limit)
    retry = 0 if allowed else _ceil(cost * width - tokens, rule.limit)
    return Verdict(allowed, capacity, tokens // width, reset, retry)


def _ceil(amount: int, by: int) -> int:
    return -(-amount // by)


def check_cost(rule: Rule, cost: int) -> None:
    """Raises InvalidRequestError (``invalid_request``) for what could never be allowed."""
    _check("cost", cost, 1, rule.capacity)


def _check(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequestError(f"The {what} of a rate limit must be from {least} to {most}.")
