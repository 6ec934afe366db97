"""RateLimits: rate limits kept in the databases of the tenants whose they are.

- A check is one event of the tenant: exact, however many come at once.
- No check waits for a disk: what it wrote goes to the log with the next commit, a second later at
  the latest. A crash forgets the hits of that second, an orderly stop none.
- The time is the wall clock's as of the start, moved on by the monotonic clock: setting the clock
  neither gives anything away nor locks anybody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial

from dosql.clock import Clock
from dosql.errors import DosqlError
from dosql.host.tenant import Tenant
from dosql.host.tenants import Tenants
from dosql.log.records import ObjectKey
from dosql.objects.rate_rules import Rule, Verdict
from dosql.objects.rate_table import clean_up, hit
from dosql.sqlite.database import Database

_log = logging.getLogger("dosql.rate_limits")

CLEAN_UP_EVERY = 8
"""Hits between two looks for rows that say nothing any more."""
CLEAN_UP_ROWS = 64
"""Rows deleted at one look: more than can have come since the last one."""
SWEEP_S = 60.0
SWEEP_ROWS = 1_000
"""Rows of one turn in which nothing else is done: some milliseconds."""


class RateLimits:
    """The limits of all tenants of a host."""

    def __init__(self, tenants: Tenants, clock: Clock) -> None:
        self._tenants = tenants
        self._monotonic = clock.monotonic
        self._epoch_ms = clock.now_ms() - int(clock.monotonic() * 1_000)
        self._hits = 0
        self._used: dict[ObjectKey, Tenant] = {}
        """Whose tables may hold something."""

    def now_ms(self) -> int:
        """The time that limits go by; it never goes back."""
        return self._epoch_ms + int(self._monotonic() * 1_000)

    async def hit(self, tenant: Tenant, rule: Rule, key: bytes, cost: int = 1) -> Verdict:
        """Take ``cost`` units of the tenant's, if they are there. See `rate_table.rate_key`.

        Raises:
            InvalidRequestError: more than could ever be there.
            DosqlError: the database cannot be used now; nothing was counted.
        """
        self._hits += 1
        self._used[tenant.key] = tenant
        tidy = self._hits % CLEAN_UP_EVERY == 0

        def check(db: Database) -> Verdict:
            now = self.now_ms()
            if tidy:
                clean_up(db, now, CLEAN_UP_ROWS)
            return hit(db, rule, key, now, cost)

        verdict, _ = await tenant.perform(check, confirmed=False)
        return verdict

    async def run(self) -> None:
        """For ever: now and then delete what says nothing any more."""
        while True:
            await asyncio.sleep(SWEEP_S)
            with contextlib.suppress(DosqlError):
                await self.sweep()

    async def sweep(self) -> int:
        """Delete what says nothing any more, of the tenants that are awake; how many rows."""
        deleted = 0
        for key, tenant in list(self._used.items()):
            if self._tenants.awake.peek(key) is None:
                self._used.pop(key, None)  # it goes on with the next hit
                continue
            try:
                deleted += await self._sweep(tenant)
            except DosqlError as error:
                _log.warning("the rate limits of a tenant could not be tidied: %s", error.code)
        return deleted

    async def _sweep(self, tenant: Tenant) -> int:
        deleted = 0
        while True:
            work = partial(clean_up, now=self.now_ms(), rows_max=SWEEP_ROWS)
            count, _ = await tenant.perform(work, confirmed=False)
            deleted += count
            if count < SWEEP_ROWS:
                return deleted
            await asyncio.sleep(0)
