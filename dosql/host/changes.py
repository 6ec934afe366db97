"""Changes: who follows the changes of a tenant, and how they hear of new ones.

Invariants:
- What a subscriber is given passed the output gate: it is read by a call like any other, which
  returns when all that it saw is durable.
- Nobody polls. A commit that became durable wakes the subscribers of its object, and they read; as
  long as there is none, the object may sleep.
- A subscriber holds one page at most; what it has not asked for yet is in the database only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dosql.bookmarks import Bookmark
from dosql.clock import Clock, Timers
from dosql.errors import OverloadedError, RateLimitedError
from dosql.host import change_slots
from dosql.limits import (
    CHANGE_HEARTBEAT_S,
    CHANGE_SUBSCRIBERS_MAX,
    CHANGE_SUBSCRIBERS_NODE_MAX,
    CHANGES_PAGE_BYTES_MAX,
    CHANGES_PAGE_MAX,
)
from dosql.log.records import ObjectKey
from dosql.sqlite.capture import start_capture
from dosql.sqlite.change_log import Change, ChangeLog, Retention, changes_in
from dosql.sqlite.database import Database, Row
from dosql.wire.changes import ChangeSlot, ChangeSlots

if TYPE_CHECKING:
    from dosql.host.tenant import Tenant

T = TypeVar("T")


class ChangeSettings(msgspec.Struct, frozen=True):
    """How changes are captured and followed."""

    always: bool = False
    """Capture those of every tenant, from its beginning; else from the first subscriber on."""
    retention: Retention = msgspec.field(default_factory=Retention)
    subscribers_max: int = CHANGE_SUBSCRIBERS_MAX
    subscribers_node_max: int = CHANGE_SUBSCRIBERS_NODE_MAX
    heartbeat_s: float = CHANGE_HEARTBEAT_S


class ChangePage(msgspec.Struct, frozen=True):
    """What there was to say at one moment."""

    changes: list[Change]
    cursor: int
    """Number of the change up to which the subscriber knows everything now."""
    reset: bool
    """What it followed is not kept any more: it must copy the tables, as they are at `bookmark`
    or later, and goes on behind `cursor`; there are no changes in this page then."""
    more: bool
    """There is more already."""
    bookmark: Bookmark


class Changes:
    """The subscribers of a host."""

    def __init__(self, settings: ChangeSettings, *, clock: Clock, timers: Timers) -> None:
        self.settings = settings
        self._clock = clock
        self._timers = timers
        self._subscribers: dict[ObjectKey, set[Subscription]] = {}
        self.count = 0
        """Open subscriptions."""

    def durable(self, key: ObjectKey) -> None:
        """Commits of this object became durable or were given up, or it is gone."""
        for subscriber in self._subscribers.get(key, ()):
            subscriber.wake()

    # --- reading ------------------------------------------------------------------------------

    async def page(self, tenant: Tenant, after: int | None, limit: int) -> ChangePage:
        """Changes behind ``after`` (None: none, but where the newest is), as far as they are
        durable when this returns. Begins to capture if that is off."""

        def read(db: Database, log: ChangeLog) -> tuple[list[Row], int, bool, int]:
            last = log.last
            if after is None or not log.floor <= after <= last:
                return [], last, after is not None, last
            return log.read(after, CHANGES_PAGE_BYTES_MAX), after, False, last

        (rows, start, reset, last), bookmark = await self._with_log(tenant, read)
        limit = min(limit, CHANGES_PAGE_MAX)
        changes = list(islice(changes_in(rows, start), limit))
        cursor = changes[-1].seq if changes else start
        return ChangePage(changes, cursor, reset, cursor < last, bookmark)

    async def subscribe(
        self, tenant: Tenant, *, after: int | None, slot: str | None = None
    ) -> Subscription:
        """Follow the changes behind ``after``; None: behind what ``slot`` acknowledged, or, without
        a slot, those to come. Close it.

        Raises:
            NotFoundError: ``slot_not_found``.
            RateLimitedError: ``too_many_subscribers``: of this database.
            OverloadedError: ``too_many_subscribers``: of the server.
        """
        if slot is not None:
            known = await self.slot(tenant, slot)
            after = known.acked if after is None else after
        of_object = self._subscribers.get(tenant.key, ())
        if len(of_object) >= self.settings.subscribers_max:
            raise RateLimitedError(
                "Too many follow the changes of this database.",
                code="too_many_subscribers",
                retry_after_s=10,
            )
        if self.count >= self.settings.subscribers_node_max:
            raise OverloadedError(
                "Too many follow changes on this server.",
                code="too_many_subscribers",
                retry_after_s=10,
            )
        subscription = Subscription(self, tenant, after, self._timers)
        self._subscribers.setdefault(tenant.key, set()).add(subscription)
        self.count += 1
        return subscription

    def left(self, subscription: Subscription, key: ObjectKey) -> None:
        """A subscription was closed."""
        among = self._subscribers.get(key)
        if among is not None and subscription in among:
            among.discard(subscription)
            self.count -= 1
            if not among:
                del self._subscribers[key]

    # --- slots --------------------------------------------------------------------------------

    async def slots(self, tenant: Tenant) -> ChangeSlots:
        """All slots by name."""
        return (await self._with_log(tenant, change_slots.list_slots))[0]

    async def slot(self, tenant: Tenant, name: str) -> ChangeSlot:
        """Raises NotFoundError: ``slot_not_found``."""
        work = lambda db, log: change_slots.get_slot(db, log, name)  # noqa: E731
        return (await self._with_log(tenant, work))[0]

    async def create_slot(self, tenant: Tenant, name: str, after: int | None) -> ChangeSlot:
        """Raises as `change_slots.create_slot`."""
        now_ms = self._clock.now_ms()

        def work(db: Database, log: ChangeLog) -> ChangeSlot:
            return change_slots.create_slot(db, log, name, after, now_ms)

        return (await self._with_log(tenant, work))[0]

    async def delete_slot(self, tenant: Tenant, name: str) -> None:
        """Raises NotFoundError: ``slot_not_found``."""
        await self._with_log(tenant, lambda db, log: change_slots.delete_slot(db, log, name))

    async def acknowledge(self, tenant: Tenant, name: str, seq: int) -> ChangeSlot:
        """Raises as `change_slots.acknowledge`."""
        now_ms = self._clock.now_ms()

        def work(db: Database, log: ChangeLog) -> ChangeSlot:
            return change_slots.acknowledge(db, log, name, seq, now_ms)

        return (await self._with_log(tenant, work))[0]

    async def _with_log(
        self, tenant: Tenant, work: Callable[[Database, ChangeLog], T]
    ) -> tuple[T, Bookmark]:
        def run(db: Database) -> T:
            capture = db.capture
            if capture is None:
                capture = start_capture(
                    db,
                    self._clock,
                    self.settings.retention,
                    incarnation=tenant.key.incarnation,
                )
            return work(db, capture.log)

        return await tenant.perform(run)


class Subscription:
    """One follower of one tenant's changes; made by `Changes.subscribe`."""

    def __init__(self, changes: Changes, tenant: Tenant, after: int | None, timers: Timers) -> None:
        self.tenant = tenant
        self.cursor = after
        """Number of the change up to which everything was given; None: not known yet."""
        self.is_new = True
        """Nothing was read yet."""
        self._changes = changes
        self._timers = timers
        self._due = True
        self._wakes = asyncio.Event()

    def wake(self) -> None:
        """There may be something new."""
        self._due = True
        self._wakes.set()

    async def next(self) -> ChangePage | None:
        """What follows; waits for it. The first answer comes at once, whether there is anything
        or not. None: nothing for so long that the line should be kept alive.

        Raises:
            NotFoundError: ``tenant_not_found``: the tenant is gone, or is another one now.
            DosqlError: as any call.
        """
        is_late = False

        def beat() -> None:
            nonlocal is_late
            is_late = True
            self._wakes.set()

        timer = self._timers.call_later(self._changes.settings.heartbeat_s, beat)
        try:
            while not is_late or self._due:
                if self._due:
                    page = await self._read()
                    if page is not None:
                        return page
                else:
                    await self._wakes.wait()
                    self._wakes.clear()
            return None
        finally:
            timer.cancel()

    async def _read(self) -> ChangePage | None:
        self._due = False
        is_first = self.is_new
        try:
            page = await self._changes.page(self.tenant, self.cursor, CHANGES_PAGE_MAX)
        except BaseException:
            self._due = True
            raise
        self.is_new = False
        self.cursor = page.cursor
        self._due = self._due or page.more
        return page if page.changes or page.reset or is_first else None

    def close(self) -> None:
        """Follow no more. Idempotent."""
        self._changes.left(self, self.tenant.key)
