"""Alarms of real objects, end to end: user code, storage, catalog, alarm clock and crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from dosql.clock import SystemClock
from dosql.errors import DosqlError, ObjectResetError, UnavailableError
from dosql.host.host import Host
from dosql.host.namespace import Namespace
from dosql.limits import ALARM_HANDLER_S_MAX
from dosql.objects.alarms import AlarmInfo
from dosql.objects.app import App
from dosql.objects.durable_object import DurableObject
from dosql.testing.clock import ManualClock
from dosql.testing.memory_host import MemoryHost
from dosql.testing.memory_log import MemoryLog
from tests.support.hosts import crashed, running_host, settings, until

Handler = Callable[["Bell", AlarmInfo], Awaitable[None]]


async def nothing(bell: Bell, info: AlarmInfo) -> None:
    """A handler that succeeds at once."""


class Bell(DurableObject):
    """Notes every run of its alarm, in storage and outside of it."""

    rung: ClassVar[list[tuple[str, int, int]]] = []
    """Outside: name, scheduled time and retry count, whatever became of the run."""
    on_ring: Handler = staticmethod(nothing)
    wakes = 0

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        Bell.wakes += 1

    async def set(self, at_ms: int) -> None:
        await self.ctx.storage.set_alarm(at_ms)

    async def schedule(self, name: str, **when: Any) -> None:
        self.ctx.storage.alarms.schedule(name, **when)

    async def delete(self, name: str) -> bool:
        return self.ctx.storage.alarms.delete(name)

    async def get(self) -> int | None:
        return await self.ctx.storage.get_alarm()

    async def kept(self) -> list[str]:
        return list(await self.ctx.storage.get("kept") or [])

    async def keep(self, what: str) -> None:
        await self.ctx.storage.put("kept", [*await self.kept(), what])

    async def alarm(self, info: AlarmInfo) -> None:
        Bell.rung.append((info.name, info.scheduled_time, info.retry_count))
        await self.keep(f"{info.name}#{info.retry_count}")
        await type(self).on_ring(self, info)


class Deaf(DurableObject):
    """A class without an alarm method."""

    async def set(self) -> None:
        await self.ctx.storage.set_alarm(5)


def app() -> App:
    app = App()
    app.durable_object(Bell)
    app.durable_object(Deaf)
    return app


class Kit:
    """A host in memory whose time and crashes are the test's."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog()
        self.started_ms = self.clock.now_ms()

    async def start(self) -> None:
        self.host = MemoryHost(app(), log=self.log, clock=self.clock, timers=self.clock)
        await self.host.start()

    async def crash(self) -> None:
        """And start again with what is durable."""
        self.log = self.log.crash()
        await self.host.kill(UnavailableError("killed"))
        await self.start()

    def bell(self, name: str = "a") -> Any:
        bells: Namespace[Bell] = self.host.objects.namespace("bell")  # type: ignore[assignment]
        return bells.get_by_name(name)

    def in_s(self, seconds: float) -> int:
        return self.clock.now_ms() + int(seconds * 1000)

    @property
    def noted(self) -> int | None:
        """The earliest time in the host's index."""
        return self.host.index.earliest()

    @property
    def rung_s(self) -> list[float]:
        """The scheduled times of all runs, in seconds after the start of the test."""
        return [(at - self.started_ms) / 1000 for _, at, _ in Bell.rung]


@pytest_asyncio.fixture
async def kit(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kit]:
    monkeypatch.setattr(Bell, "rung", [])
    monkeypatch.setattr(Bell, "on_ring", staticmethod(nothing))
    monkeypatch.setattr(Bell, "wakes", 0)
    kit = Kit()
    await kit.start()
    yield kit
    await kit.host.close()


def ring(monkeypatch: pytest.MonkeyPatch, handler: Handler) -> None:
    """What the alarm method does, once it has noted the run."""
    monkeypatch.setattr(Bell, "on_ring", staticmethod(handler))


# --- delivery -------------------------------------------------------------------------------------


async def test_an_alarm_wakes_a_hibernated_object_at_its_time(kit: Kit) -> None:
    await kit.bell().set(kit.in_s(3_600))
    await kit.host.hibernate()
    assert Bell.wakes == 1
    await kit.clock.pass_time(3_599)
    assert Bell.wakes == 1 and Bell.rung == []
    await kit.clock.pass_time(1)
    assert Bell.wakes == 2 and kit.rung_s == [3_600]
    assert await kit.bell().kept() == ["#0"]
    assert await kit.bell().get() is None and kit.noted is None


async def test_an_alarm_set_for_now_runs_at_once(kit: Kit) -> None:
    await kit.bell().set(1)
    await kit.clock.pass_time(0.01)
    assert len(Bell.rung) == 1


async def test_many_objects_ring_in_the_order_of_their_times(kit: Kit) -> None:
    for number in (3, 1, 2):
        await kit.bell(f"bell {number}").set(kit.in_s(number))
    await kit.clock.pass_time(5)
    assert kit.rung_s == [1, 2, 3]


async def test_an_object_without_a_name_has_alarms_too(kit: Kit) -> None:
    bells = kit.host.objects.namespace("bell")
    stub: Any = bells.get(bells.new_unique_id())
    await stub.set(kit.in_s(5))
    await kit.host.hibernate()
    await kit.clock.pass_time(5)
    assert kit.rung_s == [5] and await stub.kept() == ["#0"]


async def test_named_alarms_ring_one_after_the_other_with_their_data(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, Any]] = []

    async def note(bell: Bell, info: AlarmInfo) -> None:
        seen.append((f"{info.name} begins", info.data))
        await asyncio.sleep(0)
        seen.append((f"{info.name} ends", info.data))

    ring(monkeypatch, note)
    await kit.bell().schedule("b", after=10, data={"n": 1})
    await kit.bell().schedule("a", after=10)
    await kit.host.hibernate()
    await kit.clock.pass_time(10)
    assert [text for text, _ in seen] == ["a begins", "a ends", "b begins", "b ends"]
    assert seen[2][1] == {"n": 1}


async def test_a_cron_alarm_rings_again_and_again(kit: Kit) -> None:
    await kit.bell().schedule("tick", cron="* * * * *")
    for _ in range(3):
        await kit.host.hibernate()
        await kit.clock.pass_time(60)
    assert kit.rung_s == [60, 120, 180]


async def test_a_handler_can_set_its_alarm_again(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    async def again(bell: Bell, info: AlarmInfo) -> None:
        assert await bell.ctx.storage.get_alarm() is None
        await bell.ctx.storage.set_alarm(info.scheduled_time + 10_000)

    ring(monkeypatch, again)
    await kit.bell().set(kit.in_s(10))
    await kit.clock.pass_time(35)
    assert kit.rung_s == [10, 20, 30]
    assert await kit.bell().get() == kit.started_ms + 40_000


async def test_an_object_that_sets_its_alarm_to_now_keeps_no_other_from_its_own(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def again(bell: Bell, info: AlarmInfo) -> None:
        if bell.ctx.id.name == "busy":
            await bell.ctx.storage.set_alarm(1)

    ring(monkeypatch, again)
    await kit.bell("busy").set(1)
    await kit.bell("quiet").set(kit.in_s(1))
    await kit.clock.pass_time(2)
    assert await kit.bell("quiet").kept() == ["#0"]
    assert len(await kit.bell("busy").kept()) > 2
    await kit.bell("busy").delete("")


async def test_other_events_run_while_a_handler_waits(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()

    async def wait(bell: Bell, info: AlarmInfo) -> None:
        await go_on.wait()

    ring(monkeypatch, wait)
    await kit.bell().set(kit.in_s(1))
    await kit.clock.pass_time(1)
    assert await kit.bell().get() is None, "it runs"
    assert await kit.bell().kept() == ["#0"]
    go_on.set()
    await kit.clock.settle()
    assert kit.noted is None


async def test_a_class_without_a_handler_is_told_so(kit: Kit) -> None:
    stub: Any = kit.host.objects.namespace("deaf").get_by_name("a")
    with pytest.raises(Exception, match="no alarm method") as refusal:
        await stub.set()
    assert getattr(refusal.value, "code", None) == "no_alarm_handler"


# --- failures -------------------------------------------------------------------------------------


async def test_a_failing_handler_is_retried_six_times(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosql.objects.alarm_retries.JITTER_MAX", 0.0)

    async def fail(bell: Bell, info: AlarmInfo) -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    ring(monkeypatch, fail)
    await kit.bell().set(kit.in_s(10))
    await kit.host.hibernate()
    await kit.clock.pass_time(9)
    times: list[float] = []
    for _ in range(400):
        before = len(Bell.rung)
        await kit.clock.pass_time(1)
        times += [(kit.clock.now_ms() - kit.started_ms) / 1000] * (len(Bell.rung) - before)
    assert times == [10, 12, 16, 24, 40, 72, 136]
    assert [retries for _, _, retries in Bell.rung] == [0, 1, 2, 3, 4, 5, 6]
    assert set(kit.rung_s) == {10}
    assert await kit.bell().get() is None and kit.noted is None


async def test_what_a_failed_handler_wrote_is_kept_with_its_retry(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_once(bell: Bell, info: AlarmInfo) -> None:
        if info.retry_count == 0:
            raise ValueError("no")

    ring(monkeypatch, fail_once)
    await kit.bell().set(kit.in_s(1))
    await kit.clock.pass_time(1)
    await kit.crash()
    assert await kit.bell().kept() == ["#0"]
    await kit.clock.pass_time(3)
    assert await kit.bell().kept() == ["#0", "#1"]


async def test_a_handler_that_resets_its_object_is_retried_and_counts(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def abort_once(bell: Bell, info: AlarmInfo) -> None:
        if info.retry_count == 0:
            bell.ctx.abort("enough")

    ring(monkeypatch, abort_once)
    await kit.bell().set(kit.in_s(1))
    await kit.clock.pass_time(5)
    assert [retries for _, _, retries in Bell.rung] == [0, 1]
    assert await kit.bell().kept() == ["#1"], "the first run was undone with its step"


async def test_a_handler_whose_object_is_reset_by_another_event_is_retried(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def hang_once(bell: Bell, info: AlarmInfo) -> None:
        if info.retry_count == 0:
            await never.wait()

    ring(monkeypatch, hang_once)
    bell = kit.bell()
    await bell.set(kit.in_s(1))
    await kit.clock.pass_time(1)
    resident = kit.host.objects.resident(bell.id)
    assert resident is not None
    resident.activation.reset(ObjectResetError("by another event"))
    await kit.clock.pass_time(5)
    assert [retries for _, _, retries in Bell.rung] == [0, 1]
    assert await kit.bell().get() is None and kit.noted is None


async def test_a_handler_that_takes_too_long_is_ended_and_retried(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()
    ended: list[int] = []

    async def hang_once(bell: Bell, info: AlarmInfo) -> None:
        if info.retry_count == 0:
            try:
                await never.wait()
            finally:
                ended.append((kit.clock.now_ms() - kit.started_ms) // 1000)

    ring(monkeypatch, hang_once)
    await kit.bell().set(kit.in_s(1))
    await kit.clock.pass_time(ALARM_HANDLER_S_MAX + 10)
    assert ended == [1 + ALARM_HANDLER_S_MAX]
    assert [retries for _, _, retries in Bell.rung] == [0, 1]


async def test_faults_of_the_surroundings_do_not_use_up_the_retries(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(bell: Bell, info: AlarmInfo) -> None:
        if len(Bell.rung) < 12:
            raise UnavailableError("another object is down")

    ring(monkeypatch, fail)
    await kit.bell().set(kit.in_s(1))
    for _ in range(60):
        await kit.clock.pass_time(120)
    assert len(Bell.rung) == 12 and {retries for _, _, retries in Bell.rung} == {0}
    assert await kit.bell().get() is None


# --- crashes --------------------------------------------------------------------------------------


async def test_an_alarm_that_was_due_while_the_host_was_down_runs_at_the_start(kit: Kit) -> None:
    await kit.bell().set(kit.in_s(10))
    kit.log = kit.log.crash()
    await kit.host.kill(UnavailableError("killed"))
    kit.clock.advance(100_000)
    assert Bell.rung == []
    await kit.start()
    await kit.clock.settle()
    assert kit.rung_s == [10]


async def test_a_crash_in_the_middle_of_a_handler_runs_it_again(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def hang(bell: Bell, info: AlarmInfo) -> None:
        if len(Bell.rung) == 1:
            await never.wait()

    ring(monkeypatch, hang)
    await kit.bell().set(kit.in_s(1))
    await kit.clock.pass_time(1)
    await kit.crash()
    await kit.clock.settle()
    assert len(Bell.rung) == 2
    assert await kit.bell().get() is None


async def test_an_alarm_is_set_exactly_if_its_event_is_durable(kit: Kit) -> None:
    kit.log.hold()
    setting = asyncio.ensure_future(kit.bell().set(kit.in_s(5)))
    await kit.clock.settle()
    assert not setting.done(), "the reply waits for it"
    await kit.crash()
    with pytest.raises(DosqlError):
        await setting
    assert kit.noted is None
    await kit.clock.pass_time(10)
    assert Bell.rung == []


async def test_no_crash_between_commit_and_flush_loses_an_alarm(kit: Kit) -> None:
    """Whatever was written when the power went, alarm and index agree."""
    kit.log.hold()
    setting = asyncio.ensure_future(kit.bell().set(kit.in_s(5)))
    await kit.clock.settle()
    kit.log.write()  # on the disk, but nobody heard of it
    await kit.crash()
    with pytest.raises(DosqlError):
        await setting
    await kit.clock.pass_time(5)
    assert kit.rung_s == [5]


async def test_an_end_that_is_not_durable_is_no_end(kit: Kit) -> None:
    await kit.bell().set(kit.in_s(1))
    kit.log.hold()
    await kit.clock.pass_time(1)
    assert len(Bell.rung) == 1
    await kit.crash()
    await kit.clock.settle()
    assert len(Bell.rung) == 2
    assert await kit.bell().kept() == ["#0"], "the first run never was"


# --- the index ------------------------------------------------------------------------------------


async def lose_the_end_in_the_index(kit: Kit, *, asleep: bool) -> None:
    """The index has the time of an alarm that ran for good: a flush of the catalog alone failed."""
    await kit.bell().set(kit.in_s(1))
    kit.log.hold()
    await kit.clock.pass_time(1)
    kit.log.flush()  # the end of the run; after that it is taken off the index
    await kit.clock.settle()
    assert len(Bell.rung) == 1 and kit.noted is None
    if asleep:
        await kit.host.hibernate()
    kit.log.fail(UnavailableError("The disk failed.", code="commit_failed"))
    kit.log.release()
    with pytest.raises(UnavailableError):  # who asks first has the catalog rebuilt
        kit.host.index.earliest()
    await kit.clock.settle()
    assert kit.noted == kit.started_ms + 1_000


@pytest.mark.parametrize("asleep", [True, False])
async def test_a_later_alarm_rings_although_the_index_went_back_to_an_earlier_one(
    kit: Kit, asleep: bool
) -> None:
    """The alarm clock had found nothing more to wait for, and has no timer."""
    await lose_the_end_in_the_index(kit, asleep=asleep)
    assert Bell.wakes == 1
    await kit.bell().set(kit.in_s(5))
    assert Bell.wakes == 1 + asleep
    await kit.clock.pass_time(5)
    assert kit.rung_s == [1, 6]


@pytest.mark.parametrize("asleep", [True, False])
async def test_one_look_at_the_object_corrects_an_index_that_went_back(
    kit: Kit, asleep: bool
) -> None:
    """Also if the object was in memory all the time, and had been told that it was noted."""
    await lose_the_end_in_the_index(kit, asleep=asleep)
    await kit.host.objects.run_due_alarms()
    assert kit.noted is None and len(Bell.rung) == 1


async def test_pushing_an_alarm_further_away_costs_the_catalog_nothing(kit: Kit) -> None:
    """The index may be early. It costs one look at the object, and is exact after it slept."""
    await kit.bell().set(kit.in_s(10))
    await kit.bell().set(kit.in_s(20))
    assert kit.noted == kit.in_s(10)
    await kit.clock.pass_time(10)
    assert Bell.rung == [] and kit.noted == kit.started_ms + 20_000
    await kit.clock.pass_time(10)
    assert kit.rung_s == [20]


async def test_a_deleted_alarm_does_not_wake_a_hibernated_object(kit: Kit) -> None:
    await kit.bell().set(kit.in_s(10))
    await kit.bell().keep("so that the object goes on to exist")
    await kit.bell().delete("")
    await kit.host.hibernate()
    assert kit.noted is None and Bell.wakes == 1
    await kit.clock.pass_time(100)
    assert Bell.wakes == 1


async def test_run_due_alarms_runs_them_now_and_waits(kit: Kit) -> None:
    await kit.bell().set(kit.in_s(10))
    kit.clock.set_time(kit.in_s(10))
    assert await kit.host.objects.run_due_alarms() == 1
    assert len(Bell.rung) == 1


# --- on disk --------------------------------------------------------------------------------------


async def test_a_killed_host_keeps_its_alarms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real files, real time: set, kill, start, ring. The timers of the first host never come."""
    monkeypatch.setattr(Bell, "rung", [])
    host = await Host.start(settings(tmp_path), app=app(), timers=ManualClock())
    bell: Any = host.objects.namespace("bell").get_by_name("a")
    at_ms = SystemClock().now_ms() + 150
    await bell.set(at_ms)
    await crashed(host)
    async with running_host(tmp_path, app=app()) as host:
        await until(lambda: len(Bell.rung) == 1)
        assert SystemClock().now_ms() >= at_ms
        assert Bell.rung == [("", at_ms, 0)]
        stub: Any = host.objects.namespace("bell").get_by_name("a")
        await until(lambda: not host.objects._alarm_clock.deliveries)
        assert await stub.kept() == ["#0"] and await stub.get() is None
