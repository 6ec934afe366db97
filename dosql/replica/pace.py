"""Pace: how often files go to the bucket while nobody waits for them.

Each commit in a file of its own can be restored exactly, and costs a request. So a node has an
allowance of such files, enough for people at work; whoever writes faster than that gets one file
per object and second, with all that was committed meanwhile.
"""

from __future__ import annotations

from dosql.clock import Clock
from dosql.limits import REPLICA_FILES_BURST, REPLICA_FILES_PER_S, REPLICA_INTERVAL_S


class Pace:
    """Of one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._allowance = float(REPLICA_FILES_BURST)
        self._at = clock.monotonic()

    def take(self) -> bool:
        """Whether a file for a single commit may be sent now; it counts as sent."""
        now = self._clock.monotonic()
        grown = self._allowance + (now - self._at) * REPLICA_FILES_PER_S
        self._allowance, self._at = min(grown, float(REPLICA_FILES_BURST)), now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def pause_s(self, sent_at: float) -> float:
        """How long an object that last sent a file at ``sent_at`` has to wait for the next."""
        return max(0.0, sent_at + REPLICA_INTERVAL_S - self._clock.monotonic())
