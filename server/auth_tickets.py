"""Tickets: text that stands in for a token once, where a browser can send no header.

They are for URLs, which end up in logs and histories: a ticket is worth nothing once it was used,
nor half a minute after it was made. They live in the memory of one node.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from dosql.clock import Clock, Randomness
from dosql.limits import TICKET_S_MAX, TICKETS_MAX

if TYPE_CHECKING:
    from server.gate import Principal

PREFIX = "dst_"


class _Ticket(msgspec.Struct, frozen=True):
    principal: Principal
    tenant: str
    ends_at: float


class Tickets:
    """All unused tickets of the node."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._tickets: OrderedDict[bytes, _Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, principal: Principal, tenant: str) -> tuple[str, int]:
        """A ticket for this tenant, and when it ends in milliseconds since the Unix epoch."""
        now = self._clock.monotonic()
        while self._tickets and (
            len(self._tickets) >= TICKETS_MAX or next(iter(self._tickets.values())).ends_at <= now
        ):
            self._tickets.popitem(last=False)
        text = PREFIX + self._randomness.token_urlsafe(32)
        self._tickets[_digest(text)] = _Ticket(principal, tenant, now + TICKET_S_MAX)
        return text, self._clock.now_ms() + int(TICKET_S_MAX * 1000)

    def redeem(self, text: str, tenant: str) -> Principal | None:
        """Whom the ticket stands for; None if it is none of this tenant's. It is used up now."""
        ticket = self._tickets.pop(_digest(text), None)
        if ticket is None or ticket.tenant != tenant or ticket.ends_at <= self._clock.monotonic():
            return None
        return ticket.principal


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
