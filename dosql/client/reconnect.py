"""When a WebSocket that was lost is worth another connection, and how soon. Pure values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dosql.clock import jitter
from dosql.errors import (
    ConflictError,
    ConnectionFailedError,
    DosqlError,
    OverloadedError,
    RateLimitedError,
    UnavailableError,
)

CODES_OF_THE_END = frozenset({1000, 1001, 1005})
"""The server, or we, had nothing more to say."""
CODES_TO_RECONNECT = frozenset({1001, 1006, 1011, 1012, 1013, 1014, 4008})
"""The network, a failure, a restart, overload, a reader that was too slow: the next connection
may do better. Every other code is an answer, and would be the same the next time."""

Resume = Callable[[str | bytes | None], Mapping[str, str]]
"""From the last message received (None: none yet) to parameters of the next connection's URL."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Exponential backoff with full jitter; it starts anew with each connection that was made."""

    delay_s_first: float = 0.25
    delay_s_max: float = 30.0
    attempts_max: int | None = None
    """Failed ones in a row, after which the error is raised; None: never."""

    def delay_s(self, attempt: int, retry_after_s: int | None = None) -> float | None:
        """Seconds before attempt number ``attempt`` (from 0), or None: give up.

        Never shorter than what the server asked for.
        """
        if self.attempts_max is not None and attempt >= self.attempts_max:
            return None
        longest = min(self.delay_s_max, self.delay_s_first * 2.0 ** min(attempt, 32))
        return max(jitter(0.0, longest), retry_after_s or 0)


def worth_another(error: DosqlError) -> bool:
    """Whether a handshake that failed so may succeed later.

    Gateways are believed to be ours: their 502-504 say that the server is not there yet.
    """
    unavailable = (UnavailableError, ConnectionFailedError, OverloadedError, RateLimitedError)
    return isinstance(error, unavailable) or error.retryable


def closed_error(code: int, reason: str) -> DosqlError:
    """The error for a socket that was closed with this code."""
    text = f"The WebSocket was closed with {code}" + (f": {reason}" if reason else ".")
    if code in CODES_TO_RECONNECT:
        return UnavailableError(text, code="connection_lost")
    return ConflictError(text, code="websocket_closed")
