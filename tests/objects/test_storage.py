"""`ctx.storage` as a whole: which of its writes hold replies back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dosql import AlarmInfo, App, DurableObject
from dosql.errors import ConflictError
from dosql.testing import harness

LATER = 4_000_000_000_000


class Keeper(DurableObject):
    """Does to its storage what the test wants, and replies."""

    async def alarm(self, info: AlarmInfo) -> None:
        """So that it may have alarms."""


Write = Callable[[Any], object]


async def replies_at_once(write: Write) -> bool:
    """Whether the reply to a call that wrote leaves while nothing becomes durable."""
    app = App()
    app.durable_object(Keeper)
    async with harness(app) as h:
        keeper = h.env.KEEPER.get_by_name("a")
        await h.run_in_durable_object(keeper, lambda each: each.ctx.storage.set_alarm(LATER))
        h.hold_writes()
        reply = asyncio.ensure_future(
            h.run_in_durable_object(keeper, lambda each: write(each.ctx.storage))
        )
        await h.clock.settle()
        is_early = reply.done()
        h.release_writes()
        await reply
        return is_early


@pytest.mark.parametrize("allow_unconfirmed", [True, False])
async def test_alarms_hold_no_reply_back_if_they_need_not(allow_unconfirmed: bool) -> None:
    writes: list[Write] = [
        lambda storage: storage.set_alarm(LATER + 1, allow_unconfirmed=allow_unconfirmed),
        lambda storage: storage.delete_alarm(allow_unconfirmed=allow_unconfirmed),
        lambda storage: storage.put("k", 1, allow_unconfirmed=allow_unconfirmed),
    ]
    assert [await replies_at_once(write) for write in writes] == [allow_unconfirmed] * 3


async def test_an_unconfirmed_delete_all_does_not_take_what_was_confirmed_with_it() -> None:
    def write(storage: Any) -> None:
        storage.put("k", 1)
        storage.delete_all(allow_unconfirmed=True)

    assert not await replies_at_once(write)
    assert await replies_at_once(lambda storage: storage.delete_all(allow_unconfirmed=True))


@pytest.mark.parametrize("operation", ["get", "put", "delete", "list"])
async def test_a_transaction_that_was_rolled_back_can_do_nothing_any_more(operation: str) -> None:
    arguments = {"get": ("k",), "put": ("k", 2), "delete": ("k",), "list": ()}[operation]

    async def move(each: Keeper) -> None:
        async def body(txn: Any) -> None:
            await txn.put("k", 1)
            txn.rollback()
            txn.rollback()
            with pytest.raises(ConflictError) as caught:
                getattr(txn, operation)(*arguments)
            assert caught.value.code == "transaction_closed"

        await each.ctx.storage.transaction(body)
        assert await each.ctx.storage.get("k") is None

    app = App()
    app.durable_object(Keeper)
    async with harness(app) as h:
        await h.run_in_durable_object(h.env.KEEPER.get_by_name("a"), move)
