"""Events of objects that cause others: calls, alarms, sleep, and what they leave behind."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from dosql.clock import LoopTimers
from dosql.fetch import Request, Response
from dosql.objects.alarms import AlarmInfo
from dosql.objects.app import App
from dosql.objects.durable_object import DurableObject
from dosql.objects.events import current_event
from dosql.testing.clock import ManualClock
from dosql.testing.memory_host import MemoryHost
from dosql.testing.memory_log import MemoryLog
from tests.support.hosts import until

ALARMS = 5


class Node(DurableObject):
    """Calls itself and others, and sets alarms."""

    lines: ClassVar[list[int]] = []
    rung: ClassVar[asyncio.Event]
    go_on: ClassVar[asyncio.Event]
    clock: ClassVar[ManualClock]

    async def ask(self, name: str) -> str:
        await asyncio.sleep(0)
        return str(await self.env.NODE.get_by_name(name).answer())

    async def answer(self) -> str:
        return "answered"

    def add(self) -> int:
        count = int(self.ctx.storage.kv.get("count", 0)) + 1
        self.ctx.storage.kv.put("count", count)
        return count

    async def slow_add(self) -> int:
        count = self.add()
        await asyncio.sleep(0)
        return count

    async def fetch(self, request: Request) -> Response:
        return Response(str(await self.slow_add()))

    async def block_with_alarm(self) -> None:
        async def body() -> None:
            await self.set_alarm()
            await Node.go_on.wait()

        await self.ctx.block_concurrency_while(body)

    async def set_alarm(self) -> None:
        await self.ctx.storage.set_alarm(Node.clock.now_ms())

    async def alarm(self, info: AlarmInfo) -> None:
        event = current_event.get()
        assert event is not None
        self.lines.append(len(list(event.line())))
        if len(self.lines) < ALARMS:
            await self.set_alarm()
        else:
            Node.rung.set()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def host(log: MemoryLog) -> MemoryHost:
    app = App()
    app.durable_object(Node)
    clock = ManualClock()
    Node.lines.clear()
    Node.rung, Node.go_on = asyncio.Event(), asyncio.Event()
    Node.clock = clock
    host = MemoryHost(app, log=log, clock=clock, timers=LoopTimers())
    await host.start()
    return host


def node(host: MemoryHost, name: str = "a") -> Any:
    return host.env.NODE.get_by_name(name)


async def test_an_object_may_call_itself(host: MemoryHost) -> None:
    await node(host).answer()  # it is awake
    assert await asyncio.wait_for(node(host).ask("a"), 5) == "answered"


async def test_calls_between_two_busy_objects_do_not_lock_each_other(host: MemoryHost) -> None:
    await asyncio.gather(node(host, "a").answer(), node(host, "b").answer())
    calls = [
        node(host, caller).ask(called) for _ in range(20) for caller, called in ("ab", "ba", "aa")
    ]
    assert set(await asyncio.wait_for(asyncio.gather(*calls), 5)) == {"answered"}


@pytest.mark.parametrize("call", ["add", "slow_add", "fetch"])
async def test_a_call_that_came_while_its_object_fell_asleep_wakes_it_again(
    host: MemoryHost, log: MemoryLog, call: str
) -> None:
    """It waited for its turn, and nobody hears that there was no turn to come."""
    await node(host).add()
    log.hold()
    written = asyncio.ensure_future(node(host).add())
    await _turns()
    asleep = asyncio.ensure_future(host.hibernate())  # which waits for the write
    await _turns()
    stub = node(host)
    came = asyncio.ensure_future(stub.fetch("/") if call == "fetch" else getattr(stub, call)())
    await _turns()
    log.release()
    answer = await asyncio.wait_for(came, 5)
    assert int(await answer.text() if isinstance(answer, Response) else answer) == 3
    assert await written == 2
    await asleep


async def test_alarms_that_set_the_next_one_leave_no_chain_behind(host: MemoryHost) -> None:
    """With the timers of the event loop, which run in the context of whoever set them."""
    await node(host).set_alarm()
    await asyncio.wait_for(Node.rung.wait(), 5)
    assert Node.lines[1:] == [1] * (ALARMS - 1)


async def test_an_alarm_that_a_section_sets_waits_for_it_without_being_refused(
    host: MemoryHost, caplog: pytest.LogCaptureFixture
) -> None:
    """The section does not wait for the alarm, so this is no deadlock."""
    section = asyncio.ensure_future(node(host).block_with_alarm())
    await until(lambda: host.objects._alarm_clock.deliveries > 0)
    await _turns()
    assert Node.lines == []
    Node.go_on.set()
    await section
    await until(lambda: bool(Node.lines or caplog.records))
    assert not caplog.records


async def _turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)
