"""Attempts: how often somebody may try to log in, and how often one address may, whatever the
tenant.

The limits of a tenant are in its own database, see `LoginAttempts`. Those here are about one
address that tries many tenants: in the memory of the node, where they cost no disk, and gone with
it; what the address has tried at each tenant is not.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dosql.clock import Clock
from dosql.errors import RateLimitedError
from dosql.host.login_attempts import Allowance
from dosql.limits import ATTEMPTS_FORGOTTEN_S, ATTEMPTS_KEPT_MAX

OF_CLIENT = Allowance(5, 300.0)
"""One address that tries one account."""
OF_ACCOUNT = Allowance(20, 30.0)
"""All addresses together that try one account: strangers must not lock its owner out."""
OF_ADDRESS = Allowance(100, 60.0)
"""One address that tries many accounts; there may be an office behind it."""

Keys = Sequence[tuple[Hashable, Allowance]]


def too_many_attempts(wait_s: float) -> RateLimitedError:
    """For who has to wait."""
    return RateLimitedError(
        "Too many failed attempts; wait before the next.",
        code="too_many_attempts",
        retry_after_s=math.ceil(wait_s),
    )


class LoginLimits(Protocol):
    """What decides whether an address may try."""

    def begin(self, keys: Keys) -> None:
        """Count an attempt. Raises RateLimitedError (``too_many_attempts``); not counted then."""
        ...

    def succeeded(self, keys: Keys) -> None:
        """The attempt was none: take it back, and forget the first key's failures."""
        ...

    def gave_up(self, keys: Keys) -> None:
        """It was not tried after all: take it back."""
        ...


@dataclass(slots=True)
class _Failures:
    count: int
    next_at: float
    """When the next is allowed, on the monotonic clock."""
    seen_at: float


class Attempts:
    """Implements `LoginLimits`."""

    def __init__(self, clock: Clock, *, kept_max: int = ATTEMPTS_KEPT_MAX) -> None:
        self._clock = clock
        self._kept_max = kept_max
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def begin(self, keys: Keys) -> None:
        """See `LoginLimits`."""
        now = self._clock.monotonic()
        found = [(key, allowance, self._of(key, now)) for key, allowance in keys]
        wait = max((each.next_at - now for _, _, each in found), default=0.0)
        if wait > 0:
            raise too_many_attempts(wait)
        for key, allowance, failures in found:
            failures.count += 1
            failures.seen_at = now
            failures.next_at = now + _delay_s(failures.count, allowance)
            self._failures[key] = failures
            self._failures.move_to_end(key)
        while len(self._failures) > self._kept_max:
            self._failures.popitem(last=False)

    def succeeded(self, keys: Keys) -> None:
        """See `LoginLimits`."""
        self.gave_up(keys)
        self._failures.pop(keys[0][0], None)

    def gave_up(self, keys: Keys) -> None:
        """See `LoginLimits`."""
        for key, allowance in keys:
            failures = self._failures.get(key)
            if failures is None:
                continue
            failures.count -= 1
            failures.next_at = failures.seen_at + _delay_s(failures.count, allowance)
            if failures.count <= 0:
                del self._failures[key]

    def _of(self, key: Hashable, now: float) -> _Failures:
        failures = self._failures.get(key)
        if failures is None or now - failures.next_at > ATTEMPTS_FORGOTTEN_S:
            return _Failures(0, now, now)
        return failures


def _delay_s(count: int, allowance: Allowance) -> float:
    """1, 2, 4... seconds behind the free ones."""
    late = count - allowance.free
    return 0.0 if late < 0 else min(2.0 ** min(late, 30), allowance.delay_s_max)
