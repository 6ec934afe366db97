"""Calls that wait for a wake: in line, with one wake for all of them, whoever gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dosql.errors import UnavailableError
from dosql.host.arrivals import Arrivals


class Thing:
    """What is woken."""

    is_alive = True


class Wakes:
    """Wakes that end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[Thing]] = []
        self.arrivals = Arrivals(self.begin)
        self.gone_on: list[int] = []

    def begin(self) -> asyncio.Task[Thing]:
        outcome: asyncio.Future[Thing] = asyncio.get_running_loop().create_future()
        self.begun.append(outcome)

        async def wake() -> Thing:
            return await outcome

        return asyncio.get_running_loop().create_task(wake())

    def call(
        self, number: int, then: Callable[[Thing], None] = lambda _: None
    ) -> asyncio.Task[None]:
        async def call() -> None:
            then(await self.arrivals.wait())
            self.gone_on.append(number)

        return asyncio.get_running_loop().create_task(call())


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def wakes() -> Wakes:
    return Wakes()


async def test_one_wake_is_for_all_in_their_order(wakes: Wakes) -> None:
    calls = [wakes.call(number) for number in range(5)]
    await turns()
    assert len(wakes.begun) == 1 and wakes.gone_on == []
    wakes.begun[0].set_result(Thing())
    await asyncio.gather(*calls)
    assert wakes.gone_on == [0, 1, 2, 3, 4]
    assert wakes.arrivals.is_over


async def test_who_comes_while_others_are_about_to_go_on_is_behind_them(wakes: Wakes) -> None:
    calls = [wakes.call(number) for number in range(3)]
    await turns()
    wakes.begun[0].set_result(Thing())
    for number in range(3, 12):  # one in every turn of the loop
        calls.append(wakes.call(number))
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert wakes.gone_on == list(range(12))


async def test_a_wake_that_fails_fails_for_all_and_the_next_call_tries_again(wakes: Wakes) -> None:
    calls = [wakes.call(number) for number in range(3)]
    await turns()
    wakes.begun[0].set_exception(UnavailableError("no disk"))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3
    assert wakes.arrivals.is_over
    later = wakes.call(3)
    await turns()
    wakes.begun[1].set_result(Thing())
    await later
    assert wakes.gone_on == [3]


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_caller_that_gives_up_holds_nobody_up(wakes: Wakes, which: int) -> None:
    calls = [wakes.call(number) for number in range(3)]
    await turns()
    calls[which].cancel()
    await turns()
    wakes.begun[0].set_result(Thing())
    await asyncio.gather(*calls, return_exceptions=True)
    assert wakes.gone_on == [number for number in range(3) if number != which]
    assert len(wakes.begun) == 1 and wakes.arrivals.is_over


async def test_a_wake_that_nobody_waits_for_any_more_is_over_when_it_ends(wakes: Wakes) -> None:
    call = wakes.call(0)
    await turns()
    call.cancel()
    await turns()
    assert not wakes.arrivals.is_over
    wakes.begun[0].set_result(Thing())
    await turns()
    assert wakes.arrivals.is_over


async def test_if_the_first_resets_the_object_the_others_wake_it_again_in_their_order(
    wakes: Wakes,
) -> None:
    def die(thing: Thing) -> None:
        thing.is_alive = False

    calls = [wakes.call(0, die), *(wakes.call(number) for number in range(1, 5))]
    await turns()
    wakes.begun[0].set_result(Thing())
    await turns()
    assert wakes.gone_on == [0] and len(wakes.begun) == 2
    wakes.begun[1].set_result(Thing())
    await asyncio.gather(*calls)
    assert wakes.gone_on == [0, 1, 2, 3, 4] and len(wakes.begun) == 2
