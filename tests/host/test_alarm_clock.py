"""The alarm clock: one timer over an index; never early, nothing lost, nobody held up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dosql.errors import UnavailableError
from dosql.host.alarm_clock import AlarmClock
from dosql.host.alarm_index import DueAlarm
from dosql.limits import ALARM_CHECK_S_MAX
from dosql.log.records import ObjectKey
from dosql.testing.clock import ManualClock

NOW = 1_000_000


class MemoryIndex:
    """What `AlarmIndex` answers, of names in a dict. ``fails`` raises it instead."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        self.fails: Exception | None = None
        self.questions = 0

    def earliest(self, after_ms: int = -1) -> int | None:
        self._ask()
        return min((at for at in self.times.values() if at > after_ms), default=None)

    def due(self, now_ms: int, limit: int, after: DueAlarm | None = None) -> list[DueAlarm]:
        self._ask()
        rows = [entry(name, at) for name, at in self.times.items() if at <= now_ms]
        rows.sort(key=lambda each: (each.at_ms, each.key.id))
        if after is not None:
            rows = [r for r in rows if (r.at_ms, r.key.id) > (after.at_ms, after.key.id)]
        return rows[:limit]

    def _ask(self) -> None:
        self.questions += 1
        if self.fails is not None:
            raise self.fails


def entry(name: str, at_ms: int) -> DueAlarm:
    return DueAlarm(at_ms, "room", ObjectKey(name.encode(), 1), name)


class Kit:
    """An alarm clock whose deliveries are written down, and fail or wait as a test says."""

    def __init__(self, deliveries_max: int = 100) -> None:
        self.time = ManualClock(now_ms=NOW)
        self.index = MemoryIndex()
        self.delivered: list[tuple[str, int]] = []
        """Who, and how many ms after NOW."""
        self.errors: dict[str, BaseException] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.vain: set[str] = set()
        """Who turns out to have no alarm, and stays in the index."""
        self.clock = AlarmClock(
            self.index,
            self.deliver,
            self.time,
            self.time,
            deliveries_max=deliveries_max,
            jitter=lambda low, high: 0.0,
        )

    async def deliver(self, due: DueAlarm) -> int:
        name = str(due.name)
        self.delivered.append((name, self.time.now_ms() - NOW))
        if name in self.held:
            await self.held[name].wait()
        if name in self.errors:
            raise self.errors[name]
        if name in self.vain:
            return 0
        if self.index.times.get(name) == due.at_ms:  # else it was set again meanwhile
            del self.index.times[name]
        return 1

    def set(self, name: str, seconds: float) -> None:
        """As an object does: note the time, and tell the clock."""
        at_ms = self.time.now_ms() + int(seconds * 1000)
        self.index.times[name] = at_ms
        self.clock.changed(at_ms)


@pytest_asyncio.fixture
async def kit() -> AsyncIterator[Kit]:
    kit = Kit()
    yield kit
    await kit.clock.stop()


async def test_an_alarm_is_delivered_at_its_time_and_not_before(kit: Kit) -> None:
    await kit.clock.start()
    kit.set("a", 5)
    await kit.time.pass_time(4.999)
    assert kit.delivered == []
    await kit.time.pass_time(0.001)
    assert kit.delivered == [("a", 5_000)]
    assert kit.time.pending == [], "without alarms there is no timer"


async def test_what_is_overdue_is_delivered_at_the_start_the_oldest_first(kit: Kit) -> None:
    kit.index.times = {"new": NOW - 1, "old": NOW - 1_000_000_000, "later": NOW + 9_000}
    await kit.clock.start()
    await kit.time.settle()
    assert kit.delivered == [("old", 0), ("new", 0)]
    await kit.time.pass_time(9)
    assert kit.delivered[2:] == [("later", 9_000)]


async def test_before_the_start_and_after_the_stop_nothing_is_delivered(kit: Kit) -> None:
    kit.set("a", 1)
    await kit.time.pass_time(2)
    assert kit.delivered == []
    await kit.clock.start()
    await kit.clock.stop()
    kit.set("b", 1)
    await kit.time.pass_time(100)
    assert len(kit.delivered) <= 1 and kit.time.pending == []


async def test_there_is_one_timer_for_any_number_of_alarms(kit: Kit) -> None:
    await kit.clock.start()
    for number in range(1_000):
        kit.set(f"{number:04}", 30 + number / 100)
    kit.set("first", 10)
    assert kit.time.pending == [10]
    questions = kit.index.questions
    await kit.time.pass_time(9)
    assert kit.index.questions == questions, "nobody asks before it is time"


async def test_an_earlier_alarm_comes_first(kit: Kit) -> None:
    await kit.clock.start()
    kit.set("b", 20)
    kit.set("a", 10)
    kit.set("c", 30)
    await kit.time.pass_time(40)
    assert kit.delivered == [("a", 10_000), ("b", 20_000), ("c", 30_000)]


async def test_an_alarm_that_was_deleted_or_moved_is_not_delivered(kit: Kit) -> None:
    await kit.clock.start()
    kit.set("deleted", 5)
    kit.set("moved", 5)
    kit.set("moved", 50)
    del kit.index.times["deleted"]
    await kit.time.pass_time(10)
    assert kit.delivered == []


async def test_far_away_alarms_are_reached_in_steps(kit: Kit) -> None:
    """No timer is longer than the time between two looks."""
    await kit.clock.start()
    kit.set("a", 365 * 24 * 3600)
    assert kit.time.pending == [ALARM_CHECK_S_MAX]
    await kit.time.pass_time(ALARM_CHECK_S_MAX * 3 + 1)
    assert kit.delivered == [] and len(kit.time.pending) == 1


async def test_a_wall_clock_that_jumps_ahead_is_noticed_within_a_minute(kit: Kit) -> None:
    await kit.clock.start()
    kit.set("a", 3_600)
    kit.time.set_time(NOW + 3_600_000)
    await kit.time.pass_time(ALARM_CHECK_S_MAX)
    assert [name for name, _ in kit.delivered] == ["a"]


async def test_a_wall_clock_that_jumps_back_does_not_make_an_alarm_early(kit: Kit) -> None:
    await kit.clock.start()
    kit.set("a", 30)
    kit.time.set_time(NOW - 600_000)
    await kit.time.pass_time(629)
    assert kit.delivered == []
    await kit.time.pass_time(1)
    assert kit.delivered == [("a", 30_000)]


# --- one at a time, and so many in all ------------------------------------------------------------


async def test_an_object_has_one_delivery_at_a_time(kit: Kit) -> None:
    kit.held["a"] = asyncio.Event()
    await kit.clock.start()
    kit.set("a", 0)
    kit.set("b", 5)
    await kit.time.pass_time(200)
    assert kit.delivered == [("a", 1), ("b", 5_000)]
    kit.held.pop("a").set()
    await kit.time.settle()
    assert [name for name, _ in kit.delivered] == ["a", "b"]


async def test_what_becomes_due_during_a_delivery_is_delivered_after_it(kit: Kit) -> None:
    kit.held["a"] = asyncio.Event()
    await kit.clock.start()
    kit.set("a", 0)
    await kit.time.pass_time(1)

    kit.set("a", 0)  # by its own handler
    await kit.time.pass_time(1)
    assert kit.delivered == [("a", 1)]
    kit.held.pop("a").set()
    await kit.time.settle()
    assert kit.delivered == [("a", 1), ("a", 2_000)]
    assert kit.index.times == {}


async def test_only_so_many_are_delivered_at_a_time() -> None:
    kit = Kit(deliveries_max=3)
    names = [f"{number:03}" for number in range(250)]
    kit.index.times = {name: NOW - 1 for name in names}
    kit.held = {name: asyncio.Event() for name in names}
    await kit.clock.start()
    await kit.time.settle()
    assert [name for name, _ in kit.delivered] == names[:3] and kit.clock.deliveries == 3
    kit.held["001"].set()
    await kit.time.settle()
    assert [name for name, _ in kit.delivered] == names[:4] and kit.clock.deliveries == 3
    for event in kit.held.values():
        event.set()
    while kit.index.times:
        await kit.time.settle()
    assert [name for name, _ in kit.delivered] == names, "each of them once"


async def test_slow_and_failing_objects_hold_nobody_up() -> None:
    """More of them than one page of the index has, and than the clock would deliver at once."""
    kit = Kit(deliveries_max=300)
    failing = [f"f{number:03}" for number in range(250)]
    kit.index.times = {name: NOW - 10 for name in failing}
    kit.errors = {name: UnavailableError("damaged") for name in failing}
    await kit.clock.start()
    await kit.time.settle()
    kit.delivered.clear()
    kit.set("healthy", 1)
    await kit.time.pass_time(1)
    assert kit.delivered == [("healthy", 1_000)]
    await kit.clock.stop()


# --- failures -------------------------------------------------------------------------------------


async def test_a_failed_delivery_is_tried_again_after_growing_pauses(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    kit.errors["a"] = UnavailableError("the disk is gone")
    await kit.clock.start()
    kit.set("a", 0)
    await kit.time.pass_time(31)
    at = [ms // 1000 for _, ms in kit.delivered]
    assert at == [0, 2, 6, 14, 30]
    assert "the disk is gone" in caplog.text and "next attempt in 8 s" in caplog.text
    del kit.errors["a"]
    await kit.time.pass_time(32)
    assert len(kit.delivered) == 6 and kit.index.times == {} and kit.time.pending == []


async def test_after_a_success_the_pauses_begin_anew(kit: Kit) -> None:
    await kit.clock.start()
    kit.errors["a"] = UnavailableError("x")
    kit.set("a", 0)
    await kit.time.pass_time(13)  # 0, 2, 6; the next one at 14
    kit.errors.clear()
    await kit.time.pass_time(2)
    kit.errors["a"] = UnavailableError("x")
    kit.delivered.clear()
    kit.set("a", 0)
    await kit.time.pass_time(3)
    assert len(kit.delivered) == 2


async def test_a_failing_object_whose_alarm_is_deleted_is_forgotten(kit: Kit) -> None:
    kit.errors["a"] = UnavailableError("x")
    await kit.clock.start()
    kit.set("a", 0)
    await kit.time.pass_time(1)
    del kit.index.times["a"]
    await kit.time.pass_time(100)
    assert len(kit.delivered) == 1 and kit.time.pending == [] and not kit.clock._delays


async def test_a_bug_in_a_delivery_is_logged_and_retried(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    kit.errors["a"] = ZeroDivisionError("bug")
    await kit.clock.start()
    kit.set("a", 0)
    await kit.time.pass_time(3)
    assert len(kit.delivered) == 2
    assert any(record.exc_info for record in caplog.records)


async def test_a_delivery_that_was_cancelled_from_inside_is_retried(kit: Kit) -> None:
    kit.errors["a"] = asyncio.CancelledError()
    await kit.clock.start()
    kit.set("a", 0)
    await kit.time.pass_time(3)
    assert len(kit.delivered) == 2


async def test_an_index_that_stays_wrong_does_not_make_it_spin(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    kit.vain.add("a")
    await kit.clock.start()
    kit.set("a", 0)
    await kit.time.pass_time(10)
    assert len(kit.delivered) == 4, "at once, once more, after 2 s and after 4 s more"
    assert "no alarm" in caplog.text
    del kit.index.times["a"]
    await kit.time.pass_time(100)
    assert not kit.clock._vain and not kit.clock._delays


async def test_an_index_that_cannot_be_read_is_asked_again(kit: Kit) -> None:
    kit.index.fails = UnavailableError("the catalog is being rebuilt")
    kit.index.times["a"] = NOW
    await kit.clock.start()
    await kit.time.pass_time(5)
    assert kit.delivered == []
    kit.index.fails = None
    await kit.time.pass_time(1)
    assert [name for name, _ in kit.delivered] == ["a"]


# --- stopping, and tests of others ----------------------------------------------------------------


async def test_a_stop_waits_for_what_is_under_way_and_then_cancels_it(kit: Kit) -> None:
    kit.held = {"quick": asyncio.Event(), "slow": asyncio.Event()}
    await kit.clock.start()
    kit.set("quick", 0)
    kit.set("slow", 0)
    await kit.time.pass_time(1)
    asyncio.get_running_loop().call_soon(kit.held["quick"].set)
    await kit.clock.stop(grace_s=0.05)
    assert kit.clock.deliveries == 0
    assert set(kit.index.times) == {"slow"}, "what was cancelled is still there"
    assert kit.time.pending == []


async def test_run_due_delivers_all_that_is_due_and_waits_for_it(kit: Kit) -> None:
    """Also without a start, as a test wants it."""
    kit.index.times = {"a": NOW, "b": NOW - 5, "later": NOW + 1}
    assert await kit.clock.run_due() == 2
    assert [name for name, _ in kit.delivered] == ["b", "a"]
    assert kit.time.pending == []
    assert await kit.clock.run_due() == 0
