"""The testing kit: what a test can do with objects that nobody else could."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dosql import (
    App,
    DurableObject,
    InvalidRequestError,
    ObjectResetError,
    Request,
    Response,
    WebSocketPair,
)
from dosql.testing import Harness, ManualClock, SimpleState, SocketClosed, harness

app = App(vars={"GREETING": "hello"})


@app.durable_object
class Room(DurableObject):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.visits = 0
        self.loaded: int | None = None
        ctx.block_concurrency_while(self._load)

    async def _load(self) -> None:
        await asyncio.sleep(0)
        self.loaded = self.ctx.storage.kv.get("count", 0)

    async def fetch(self, request: Request) -> Response:
        if request.is_websocket_upgrade:
            client, server = WebSocketPair()
            self.ctx.accept_websocket(server)
            return Response(status=101, web_socket=client)
        return Response(f"{self.env.GREETING if self.env else 'hi'} at {request.path}")

    def add(self, count: int = 1) -> int:
        self.visits += 1
        total: int = self.ctx.storage.kv.get("count", 0) + count
        self.ctx.storage.kv.put("count", total)
        return total

    def count(self) -> int:
        return int(self.ctx.storage.kv.get("count", 0))

    async def move(self, count: int, *, fails: bool) -> None:
        async def body(txn: Any) -> None:
            await txn.put("count", self.count() - count)
            await asyncio.sleep(0)
            if fails:
                raise ValueError("it fails")

        await self.ctx.storage.transaction(body)

    def remind(self, seconds: float) -> None:
        self.ctx.storage.alarms.schedule("tea", after=seconds)

    def alarm(self, info: Any) -> None:
        self.add(100)

    def websocket_message(self, ws: Any, message: str) -> None:
        ws.send(f"{message} {self.add()}")


async def test_objects_are_called_through_stubs() -> None:
    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        assert await room.add(2) == 2
        response = await room.fetch("/door")
        assert await response.text() == "hello at /door"
        assert [id.name for id in h.list_ids("room")] == ["lobby"]


async def test_an_object_that_hibernates_forgets_its_memory_and_keeps_its_storage() -> None:
    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        await room.add()
        before = h.instance_of(room)
        assert before is not None
        assert before.visits == 1
        await h.hibernate(room)
        assert h.instance_of(room) is None
        assert await room.add() == 2
        after = h.instance_of(room)
        assert after is not None
        assert (after.visits, after.loaded) == (1, 1)


async def test_a_socket_outlives_hibernation() -> None:
    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        socket = await h.connect(room, "/ws")
        await socket.send("one")
        assert await socket.receive() == "one 1"
        await h.hibernate()
        await socket.send("two")
        assert await socket.receive() == "two 2"


async def test_a_door_that_is_no_socket_fails_the_test_that_connects() -> None:
    class Closed(DurableObject):
        def fetch(self, request: Request) -> Response:
            return Response("members only", 403)

    other = App()
    other.durable_object(Closed)
    async with harness(other) as h:
        with pytest.raises(AssertionError, match="403 members only"):
            await h.connect(h.env.CLOSED.get_by_name("x"))


async def test_nothing_is_shown_while_writes_are_held() -> None:
    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        socket = await h.connect(room)
        h.hold_writes()
        answer = asyncio.ensure_future(room.add())
        await socket.send("hi")
        await h.clock.settle()
        assert not answer.done()
        assert socket.receive_nowait() == []
        h.release_writes()
        assert await answer == 1
        assert await socket.receive() == "hi 2"


async def test_a_crash_undoes_what_nobody_was_told_of() -> None:
    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        assert await room.add() == 1
        h.hold_writes()
        answer = asyncio.ensure_future(room.add())
        await h.clock.settle()
        await h.crash()
        with pytest.raises(ObjectResetError):
            await answer
        assert await h.env.ROOM.get_by_name("lobby").count() == 1


async def test_a_crash_cuts_sockets() -> None:
    async with harness(app) as h:
        socket = await h.connect(h.env.ROOM.get_by_name("lobby"))
        await h.crash()
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert closed.value.code == 1006


async def test_an_evicted_object_fails_what_is_under_way() -> None:
    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        await room.add()
        h.hold_writes()
        answer = asyncio.ensure_future(room.add())
        await h.clock.settle()
        await h.evict(room)
        with pytest.raises(ObjectResetError):
            await answer
        h.release_writes()
        assert await room.count() == 1


async def test_alarms_run_when_the_test_lets_time_pass() -> None:
    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        await room.remind(60)
        await h.hibernate()
        await h.advance(59)
        assert h.instance_of(room) is None
        await h.advance(1)
        assert await room.count() == 100


async def test_an_overdue_alarm_runs_after_a_crash() -> None:
    async with harness(app, clock=ManualClock()) as h:
        await h.env.ROOM.get_by_name("lobby").remind(60)
        await h.crash()
        h.clock.set_time(h.clock.now_ms() + 3_600_000)
        assert await h.run_due_alarms() == 1
        assert await h.env.ROOM.get_by_name("lobby").count() == 100


async def test_a_test_can_reach_into_an_object() -> None:
    async def look(room: Room) -> int:
        room.ctx.storage.kv.put("count", 7)
        await asyncio.sleep(0)
        return room.count()

    async with harness(app) as h:
        room = h.env.ROOM.get_by_name("lobby")
        assert await h.run_in_durable_object(room, look) == 7
        assert await h.run_in_durable_object(room, lambda room: room.loaded) == 0
        assert await room.count() == 7


async def test_an_app_with_a_mistake_does_not_start() -> None:
    broken = App(vars={"not a name": 1})
    with pytest.raises(InvalidRequestError, match="not a name"):
        async with harness(broken):
            pass


async def test_two_harnesses_share_nothing() -> None:
    async with harness(app) as one:
        await one.env.ROOM.get_by_name("lobby").add()
    async with harness(app) as two:
        assert await two.env.ROOM.get_by_name("lobby").count() == 0


# --- SimpleState ------------------------------------------------------------------------------


async def test_simple_state_makes_an_object_without_a_host() -> None:
    """Seed row 3.20."""
    room = Room(SimpleState(), {})
    response = await room.fetch(Request("http://test/action"))
    assert await response.text() == "hi at /action"


async def test_simple_state_stores_for_real() -> None:
    state = SimpleState(name="lobby")
    room = Room(state, {})
    await state.settled()
    assert room.loaded == 0
    assert room.add(3) == 3
    await state.settled()
    with pytest.raises(ValueError, match="it fails"):
        await room.move(1, fails=True)
    assert room.count() == 3
    await room.move(1, fails=False)
    assert room.count() == 2
    assert state.storage.sql.exec("SELECT 1 AS one").one() == {"one": 1}
    assert state.id.name == "lobby"


async def test_simple_state_takes_a_manual_clock() -> None:
    clock = ManualClock()
    state = SimpleState(clock)
    Room(state, {})
    await state.settled()
    state.storage.set_alarm(clock.now_ms() + 1_000)
    assert await state.storage.get_alarm() == clock.now_ms() + 1_000


async def test_the_harness_is_typed_for_its_users() -> None:
    async with harness(app) as h:
        assert isinstance(h, Harness)
