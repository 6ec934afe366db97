"""The manual clock: time that a test moves, and nothing else."""

from __future__ import annotations

import asyncio

from dosql.clock import LoopTimers
from dosql.testing.clock import ManualClock


def test_timers_run_in_the_order_of_their_times_each_at_its_own() -> None:
    clock = ManualClock(now_ms=0)
    calls: list[tuple[str, int]] = []
    for seconds, name in ((3, "c"), (1, "a"), (2, "b1"), (2, "b2"), (9, "never")):
        clock.call_later(seconds, lambda name=name: calls.append((name, clock.now_ms())))
    clock.advance(3)
    assert calls == [("a", 1000), ("b1", 2000), ("b2", 2000), ("c", 3000)]
    assert clock.now_ms() == 3000 and clock.pending == [6]


def test_a_timer_set_by_a_timer_runs_within_the_same_advance() -> None:
    clock = ManualClock(now_ms=0)
    calls: list[int] = []

    def again() -> None:
        calls.append(clock.now_ms())
        clock.call_later(1, again)

    clock.call_later(1, again)
    clock.advance(3.5)
    assert calls == [1000, 2000, 3000]


def test_a_cancelled_timer_does_not_run() -> None:
    clock = ManualClock()
    calls: list[int] = []
    first = clock.call_later(1, lambda: second.cancel())
    second = clock.call_later(1, lambda: calls.append(2))
    third = clock.call_later(2, lambda: calls.append(3))
    third.cancel()
    clock.advance(5)
    assert calls == [] and clock.pending == []
    first.cancel()  # nothing: it has run


def test_nothing_runs_within_call_later_itself() -> None:
    clock = ManualClock()
    calls: list[int] = []
    clock.call_later(-1, lambda: calls.append(1))
    assert calls == []
    clock.advance(0)
    assert calls == [1]


def test_the_wall_clock_jumps_alone() -> None:
    clock = ManualClock(now_ms=5_000)
    calls: list[int] = []
    clock.call_later(10, lambda: calls.append(clock.now_ms()))
    before = clock.monotonic()
    clock.set_time(100_000)
    assert clock.monotonic() == before and calls == []
    clock.advance(10)
    assert calls == [110_000]


def test_many_small_steps_make_one_large_one() -> None:
    clock = ManualClock(now_ms=0)
    for _ in range(1_000):
        clock.advance(0.001)
    assert clock.now_ms() == 1_000


async def test_pass_time_lets_tasks_go_on_between_timers() -> None:
    """A task that sets its next timer only once it runs again."""
    clock = ManualClock(now_ms=0)
    seen: list[int] = []

    async def ticks() -> None:
        while True:
            passed = asyncio.Event()
            clock.call_later(10, passed.set)
            await passed.wait()
            seen.append(clock.now_ms())

    task = asyncio.create_task(ticks())
    await clock.pass_time(35)
    assert seen == [10_000, 20_000, 30_000] and clock.now_ms() == 35_000
    task.cancel()


async def test_the_timers_of_the_loop_call_later_and_can_be_cancelled() -> None:
    calls: list[str] = []
    called = asyncio.Event()
    timers = LoopTimers()
    timers.call_later(0, lambda: calls.append("cancelled")).cancel()
    timers.call_later(0.001, lambda: calls.append("called"))
    timers.call_later(0.002, called.set)
    assert calls == [], "never within call_later"
    await called.wait()
    assert calls == ["called"]
