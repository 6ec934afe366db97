"""Calls on one stub arrive in the order in which they were begun, whatever they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from dosql import App, DurableObject, Request, Response, WebSocketPair
from dosql.errors import ObjectResetError
from dosql.testing import Harness, harness

CALLS = 30
"""One in each round of the loop: some of them meet every stage of what goes on meanwhile."""


class Target(DurableObject):
    """Notes who came."""

    def come(self, number: int) -> None:
        self.env.CAME.append(number)
        if number in self.env.RESETS:
            self.ctx.abort("asked for")

    async def hold(self) -> None:
        await self.ctx.block_concurrency_while(self.env.GATE.wait)


class Caller(DurableObject):
    """Calls another object."""

    async def call_often(self) -> None:
        await call_often(self.env.TARGET.get_by_name("t"))

    async def write_and_call_often(self) -> None:
        async def write_once() -> None:
            self.ctx.storage.put("k", 1)

        await asyncio.gather(write_once(), call_often(self.env.TARGET.get_by_name("t")))


async def call_often(stub: Any) -> list[Any]:
    """Begin one call in each round of the loop; what came of them."""
    calls = []
    for number in range(CALLS):
        calls.append(asyncio.ensure_future(stub.come(number)))
        await asyncio.sleep(0)
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest_asyncio.fixture
async def h() -> AsyncIterator[Harness]:
    app = App(vars={"CAME": [], "RESETS": set(), "GATE": asyncio.Event()})
    app.durable_object(Target)
    app.durable_object(Caller)
    app.durable_object(Slow)
    async with harness(app) as h:
        yield h


async def test_calls_that_meet_a_wake_arrive_in_order(h: Harness) -> None:
    await call_often(h.env.TARGET.get_by_name("t"))
    assert list(range(CALLS)) == h.env.CAME


async def test_calls_that_meet_a_wake_and_a_reset_by_the_first_arrive_in_order(
    h: Harness,
) -> None:
    h.env.RESETS.add(0)
    outcomes = await call_often(h.env.TARGET.get_by_name("t"))
    assert sorted(h.env.CAME) == h.env.CAME
    assert isinstance(outcomes[0], ObjectResetError)


async def test_calls_from_inside_an_object_arrive_in_order_when_the_target_becomes_free(
    h: Harness,
) -> None:
    target = h.env.TARGET.get_by_name("t")
    for rounds in range(CALLS):
        h.env.CAME.clear()
        h.env.GATE.clear()
        holding = asyncio.ensure_future(target.hold())
        await h.clock.settle()
        calling = asyncio.ensure_future(h.env.CALLER.get_by_name("c").call_often())
        for _ in range(rounds):
            await asyncio.sleep(0)
        h.env.GATE.set()
        await asyncio.gather(holding, calling)
        assert list(range(CALLS)) == h.env.CAME, f"free after {rounds} rounds"


async def test_calls_from_inside_an_object_leave_in_order_when_its_gate_opens(
    h: Harness,
) -> None:
    caller = h.env.CALLER.get_by_name("c")
    await h.env.TARGET.get_by_name("t").come(-1)
    for rounds in range(CALLS):
        h.env.CAME.clear()
        h.hold_writes()
        calling = asyncio.ensure_future(caller.write_and_call_often())
        for _ in range(rounds):
            await asyncio.sleep(0)
        h.release_writes()
        await calling
        assert list(range(CALLS)) == h.env.CAME, f"open after {rounds} rounds"


async def test_a_call_from_inside_an_object_that_must_wait_is_not_overtaken_by_the_next(
    h: Harness,
) -> None:
    """The target becomes free between the two, before the first is in its queue."""
    target = h.env.TARGET.get_by_name("t")
    await target.come(-1)
    resident = h.objects.resident(target.id)
    assert resident is not None
    assert resident.ground.turns.try_enter()

    async def call_twice(caller: Caller) -> None:
        first = asyncio.ensure_future(target.come(0))
        asyncio.get_running_loop().call_soon(resident.ground.turns.leave)
        second = asyncio.ensure_future(target.come(1))
        await asyncio.gather(first, second)

    await h.run_in_durable_object(h.env.CALLER.get_by_name("c"), call_twice)
    assert h.env.CAME == [-1, 0, 1]


class Slow(DurableObject):
    """Its constructor has to wait for the disk."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        ctx.storage.put("wakes", ctx.storage.kv.get("wakes", 0) + 1)

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server)
        return Response(status=101, web_socket=client)

    def come(self, number: int) -> None:
        self.env.CAME.append(number)

    async def websocket_message(self, ws: Any, message: str) -> None:
        self.come(int(message))


async def test_a_message_does_not_overtake_a_call_that_wakes_its_object(h: Harness) -> None:
    slow = h.env.SLOW.get_by_name("s")
    socket = await h.connect(slow)
    await h.hibernate()
    assert h.instance_of(slow) is None
    h.hold_writes()
    calls = [asyncio.ensure_future(slow.come(number)) for number in range(2)]
    await h.clock.settle()
    await socket.send("2")
    await h.clock.settle()
    h.release_writes()
    await asyncio.gather(*calls)
    await h.clock.settle()
    assert h.env.CAME == [0, 1, 2]
