"""What happens to an alarm whose handler failed: the rule alone, no storage, no clock.

=========================================  =======  ==============================================
failure                                    counts   the alarm runs again after
=========================================  =======  ==============================================
the handler raised, or took too long       yes      2, 4, 8, 16, 32, 64 s; then it is given up
the object was reset by its own code       yes      the same
the object, another object that it called  no       2, 4, 8 ... 1,024 s, for as long as it takes
or the server was not available
=========================================  =======  ==============================================

To every pause up to a quarter is added at random, so that objects that failed together do not
come back together.
"""

from __future__ import annotations

from collections.abc import Callable

from dosql.errors import (
    CorruptError,
    ObjectResetError,
    OutcomeUnknownError,
    QuotaError,
    RateLimitedError,
    UnavailableError,
)
from dosql.limits import ALARM_RETRIES_MAX, ALARM_RETRY_S_MAX, ALARM_RETRY_S_MIN

JITTER_MAX = 0.25
"""Of the pause."""
_DOUBLINGS_MAX = 64
_INFRASTRUCTURE = (UnavailableError, OutcomeUnknownError, RateLimitedError, CorruptError)
_OWN_FAULT = frozenset({"section_timeout"})
"""Codes of those classes that the object's own code brought about."""


def counts(error: BaseException) -> bool:
    """Whether the failure is one of the few that an alarm may have: the code's own fault.

    A reset counts as its cause does; one without a cause is the code's own.
    """
    if isinstance(error, ObjectResetError) and error.__cause__ is not None:
        return counts(error.__cause__)
    if isinstance(error, QuotaError):
        return error.code != "disk_full"
    if isinstance(error, _INFRASTRUCTURE):
        return error.code in _OWN_FAULT
    return True


def is_last(retry_count: int) -> bool:
    """Whether a counted failure after so many counted retries is the end of the alarm."""
    return retry_count >= ALARM_RETRIES_MAX


def pause_s(failures: int, jitter: Callable[[float, float], float]) -> float:
    """The pause after a failure, in seconds, if there were so many of its kind before it.

    ``jitter(low, high)`` gives a random number in between.
    """
    pause = min(ALARM_RETRY_S_MIN * 2.0 ** min(failures, _DOUBLINGS_MAX), ALARM_RETRY_S_MAX)
    return pause * (1.0 + jitter(0.0, JITTER_MAX))
