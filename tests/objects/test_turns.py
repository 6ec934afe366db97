"""Turns: one at a time, in order, bounded, and never lost."""

from __future__ import annotations

import asyncio

import pytest

from dosql.errors import OverloadedError
from dosql.objects.turns import Turns


async def test_turns_are_taken_in_the_order_of_asking() -> None:
    turns = Turns()
    order: list[int] = []
    assert turns.try_enter()

    async def event(number: int) -> None:
        await turns.enter()
        order.append(number)
        turns.leave()

    tasks = [asyncio.create_task(event(number)) for number in range(10)]
    await asyncio.sleep(0)
    assert turns.waiting == 10
    turns.leave()
    await asyncio.gather(*tasks)
    assert order == list(range(10))
    assert not turns.busy


async def test_nobody_slips_in_before_those_who_wait() -> None:
    turns = Turns()
    turns.try_enter()
    waiting = asyncio.create_task(turns.enter())
    await asyncio.sleep(0)
    turns.leave()
    assert not turns.try_enter(), "the turn was handed over, not freed"
    await waiting
    turns.leave()
    assert turns.try_enter()


async def test_a_full_queue_refuses() -> None:
    turns = Turns(queue_max=1)
    turns.try_enter()
    waiting = asyncio.create_task(turns.enter())
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refusal:
        await turns.enter()
    assert refusal.value.code == "object_overloaded"
    assert refusal.value.retryable
    turns.leave()
    await waiting


async def test_a_wait_that_takes_too_long_is_refused_and_the_turn_goes_on() -> None:
    turns = Turns(wait_s_max=0.01)
    turns.try_enter()
    with pytest.raises(OverloadedError) as refusal:
        await turns.enter()
    assert refusal.value.code == "object_busy"
    turns.leave()
    assert turns.try_enter()


async def test_a_cancelled_waiter_is_passed_over() -> None:
    turns = Turns()
    turns.try_enter()
    first = asyncio.create_task(turns.enter())
    second = asyncio.create_task(turns.enter())
    await asyncio.sleep(0)
    first.cancel()
    turns.leave()
    await second
    assert turns.waiting == 0
    turns.leave()
    assert not turns.busy


async def test_a_turn_granted_in_the_moment_of_cancellation_is_handed_on() -> None:
    turns = Turns()
    turns.try_enter()
    first = asyncio.create_task(turns.enter())
    second = asyncio.create_task(turns.enter())
    await asyncio.sleep(0)
    turns.leave()  # granted to the first
    first.cancel()  # which is cancelled before it runs
    await second
    turns.leave()
    assert not turns.busy
