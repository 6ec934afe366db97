"""Tenant: the stub of one tenant's database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dosql.bookmarks import Bookmark
from dosql.log.records import ObjectKey
from dosql.objects.idempotency import Idempotency, Work, store_outcome, stored_outcome
from dosql.objects.instance import InstanceClosed
from dosql.objects.interactive import InteractiveTransaction
from dosql.points import parse_point
from dosql.sqlite.database import Database

if TYPE_CHECKING:
    from dosql.host.tenants import Tenants

T = TypeVar("T")


class Done(msgspec.Struct, frozen=True):
    """The outcome of one event."""

    body: bytes
    bookmark: Bookmark
    replayed: bool = False


class Tenant:
    """Calls one tenant's database: wakes it when needed, one event at a time."""

    __slots__ = ("_tenants", "key", "name")

    def __init__(self, tenants: Tenants, name: str, key: ObjectKey) -> None:
        self.name = name
        self.key = key
        self._tenants = tenants

    async def call(self, work: Work, *, idempotency: Idempotency | None = None) -> Done:
        """Run ``work`` as one event; return when all it saw and wrote is durable.

        With a key, the first outcome is stored with the write, and given again to whoever comes
        with the same key and the same request.

        Raises:
            NotFoundError: ``tenant_not_found``: the tenant was deleted meanwhile.
            ConflictError: ``idempotency_key_reused``.
            OverloadedError, UnavailableError: nothing was done.
            DosqlError: whatever ``work`` raised; nothing of it was applied.
        """
        if idempotency is not None:
            return await self._call_once(work, idempotency)
        body, bookmark = await self._call(work)
        return Done(body, bookmark)

    async def perform(
        self, work: Callable[[Database], T], *, confirmed: bool = True
    ) -> tuple[T, Bookmark]:
        """As `call`, for work of the host's own, whose result is not encoded. ``confirmed``: see
        `Instance.call`."""
        return await self._call(work, confirmed=confirmed)

    async def call_at(self, at: str, work: Work) -> Done:
        """Run ``work``, which reads, on the tenant's state at a point: RFC 3339 or a bookmark.

        Raises:
            InvalidRequestError: ``invalid_time``, ``invalid_bookmark``; ``no_bucket``.
            NotFoundError: ``restore_point_not_found``.
            ForbiddenError: ``read_only``.
            DosqlError: whatever ``work`` raised.
        """
        point = parse_point(at)
        past = self._tenants.past()
        await self._tenants.in_bucket(self.name)
        return Done(*await past.travel.read(self.key, point, work))

    async def _call(
        self, work: Callable[[Database], T], *, confirmed: bool = True
    ) -> tuple[T, Bookmark]:
        tenants = self._tenants
        while True:
            instance = tenants.awake.find(self.key)
            if instance is None:
                instance = await tenants.wake(self)
            try:
                return await instance.call(work, confirmed=confirmed)
            except InstanceClosed:
                continue

    async def _call_once(self, work: Work, idempotency: Idempotency) -> Done:
        now_ms = self._tenants.clock.now_ms()

        def once(db: Database) -> tuple[bytes, bool]:
            stored = stored_outcome(db, idempotency, now_ms)
            if stored is not None:
                return stored, True
            with db.transaction():
                body = work(db)
                store_outcome(db, idempotency, body, now_ms)
            return body, False

        (body, replayed), bookmark = await self._call(once)
        return Done(body, bookmark, replayed)

    async def committed(self, idempotency: Idempotency) -> Done | None:
        """The outcome stored under the key, or None: then nothing with it was applied."""
        now_ms = self._tenants.clock.now_ms()
        body, bookmark = await self._call(lambda db: stored_outcome(db, idempotency, now_ms))
        return None if body is None else Done(body, bookmark, replayed=True)

    async def begin(self) -> InteractiveTransaction:
        """Begin a transaction over several calls; everybody else waits until it ends.

        Raises:
            OverloadedError: the wait for the turn was too long.
        """
        tenants, settings = self._tenants, self._tenants.settings
        while True:
            instance = await tenants.wake(self)
            id = tenants.randomness.token_urlsafe(24)
            try:
                transaction = await InteractiveTransaction.open(
                    id,
                    instance,
                    clock=tenants.clock,
                    idle_s=settings.transaction_idle_s,
                    life_s=settings.transaction_s,
                )
            except InstanceClosed:
                continue
            tenants.transactions.add(self.name, transaction)
            return transaction

    def transaction(self, id: str) -> InteractiveTransaction:
        """An open transaction of this tenant. Raises NotFoundError (``transaction_not_found``)."""
        return self._tenants.transactions.get(self.name, id)
