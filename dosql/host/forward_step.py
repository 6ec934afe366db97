"""A large change to a tenant, by the host, as one step of its history that can be taken back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from dosql.bookmarks import Bookmark
from dosql.errors import ConflictError
from dosql.host.tenants import Tenants
from dosql.host.time_travel import TimeTravel
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance, InstanceClosed

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step(Generic[T_co]):
    """One that was made."""

    value: T_co
    before: Bookmark
    """A state of its own in the bucket."""
    after: Bookmark


async def forward_step(
    tenants: Tenants,
    travel: TimeTravel,
    name: str,
    key: ObjectKey,
    work: Callable[[Instance], Awaitable[T]],
) -> Step[T]:
    """Run ``work`` in the object's turn; return when what it committed is durable. Interactive
    transactions that stand in the way are rolled back.

    Raises:
        ConflictError: ``tenant_replaced``: the tenant has a new life meanwhile.
        UnavailableError: the bucket does not get what was there before.
    """
    tenant = tenants.get(name)
    if tenant.key != key:
        raise ConflictError("The tenant was replaced meanwhile.", code="tenant_replaced")
    while True:
        await tenants.transactions.roll_back(name)
        instance = await tenants.wake(tenant)
        await travel.shipped(key)  # most of the wait, while others may go on
        await instance.turns.enter()
        try:
            instance.check_open()
            await instance.flush()
            await travel.shipped(key, instance.logged_txid)
            before = instance.bookmark
            try:
                value = await work(instance)
            finally:
                instance.after_work()
            after = instance.bookmark
        except InstanceClosed:
            continue
        finally:
            instance.turns.leave()
        await instance.durable(after.txid)
        return Step(value, before, after)
