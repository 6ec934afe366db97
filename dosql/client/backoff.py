"""How long to wait before a request is sent again."""

from __future__ import annotations

from dataclasses import dataclass

from dosql.clock import jitter

DELAY_S_FIRST = 0.1
"""Before the first repetition: longer than a full turn queue takes to empty."""
DELAY_S_MAX = 2.0
"""Longer waits only because the server asked for them."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with jitter, never shorter than the server's ``Retry-After``."""

    retries: int
    """Repetitions after the first attempt."""

    def delay_s(self, attempt: int, retry_after_s: int | None, remaining_s: float) -> float | None:
        """Seconds to wait after attempt number ``attempt`` (from 0), or None: give up.

        None also when the wait would outlast the call's own time limit.
        """
        if attempt >= self.retries:
            return None
        longest = min(DELAY_S_MAX, DELAY_S_FIRST * 2**attempt)
        delay = max(jitter(longest / 2, longest), retry_after_s or 0)
        return delay if delay < remaining_s else None
