"""NodeLimits: limits in the memory of this process, for what must be decided before any tenant is
known. A restart forgets them.
"""

from __future__ import annotations

from collections import OrderedDict

from dosql.clock import Clock
from dosql.objects.rate_rules import Rule, Verdict, bucket_verdict

KEYS_MAX = 100_000
"""About 20 MB. Beyond it the key that was longest unused starts anew."""


class NodeLimits:
    """The generic cell rate algorithm: one integer for each key."""

    def __init__(self, clock: Clock, keys_max: int = KEYS_MAX) -> None:
        self._monotonic = clock.monotonic
        self._keys_max = keys_max
        self._arrivals: OrderedDict[bytes, int] = OrderedDict()
        """By key the theoretical arrival time, in units of 1/limit ms."""

    def __len__(self) -> int:
        return len(self._arrivals)

    def hit(self, rule: Rule, key: bytes) -> Verdict:
        """Take one unit, if it is there. The key must tell rules apart."""
        now = int(self._monotonic() * 1_000) * rule.limit
        arrivals = self._arrivals
        base = max(arrivals.get(key, now), now)
        capacity = rule.capacity * rule.window_ms
        allowed = base + rule.window_ms - now <= capacity
        if allowed:
            base += rule.window_ms
            arrivals[key] = base
            arrivals.move_to_end(key)
            if len(arrivals) > self._keys_max:
                arrivals.popitem(last=False)
        return bucket_verdict(rule, now + capacity - base, 1, allowed=allowed)
