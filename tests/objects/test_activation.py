"""What an object's code may rely on: steps, gates, critical sections, resets.

The ground is SQLite in memory, and the log's flushes and the clock are in the test's hands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dosql.errors import (
    ConflictError,
    ObjectResetError,
    OutcomeUnknownError,
    OverloadedError,
    SqlError,
)
from dosql.limits import SECTION_DEPTH_MAX, SECTION_S_MAX
from dosql.log.records import ObjectKey
from dosql.objects.activation import Activation
from dosql.objects.events import current_event
from dosql.objects.kv_store import KeyValueStore
from dosql.objects.sql import Sql
from dosql.testing.clock import ManualClock
from dosql.testing.memory import MemoryGround
from dosql.testing.memory_log import MemoryLog

KEY = ObjectKey(bytes(32), 1)


class Subject:
    """One activation with its storage."""

    def __init__(self, log: MemoryLog | None = None, key: ObjectKey = KEY) -> None:
        self.clock = ManualClock()
        self.log = log or MemoryLog()
        self.ground = MemoryGround(key, log=self.log, clock=self.clock)
        self.activation = Activation(self.ground, clock=self.clock, timers=self.clock)
        self.kv = KeyValueStore(self.activation.access)
        self.sql = Sql(self.activation.access)

    async def run(self, body: Callable[[], Any]) -> Any:
        """``body``, sync or async, as one event."""

        async def event() -> Any:
            value = body()
            return await value if isinstance(value, Awaitable) else value

        value, _ = await self.activation.run(event)
        return value

    def begin(self, body: Callable[[], Any]) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.run(body))

    def get(self, key: str) -> Any:
        return self.kv.get(key, None, None)

    def survivor(self) -> Subject:
        """The object after a power loss."""
        return Subject(self.log.crash())


@pytest.fixture
async def subject() -> Subject:
    return Subject()


async def turns(count: int = 20) -> None:
    """Let everything happen that can."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- steps ---


async def test_writes_without_a_wait_between_them_are_one_commit(subject: Subject) -> None:
    def body() -> None:
        for number in range(10):
            subject.kv.put(f"k{number}", number)

    await subject.run(body)
    assert subject.ground.txid == 1


async def test_a_wait_commits_what_was_written_before_it(subject: Subject) -> None:
    waits = asyncio.Event()

    async def body() -> None:
        subject.kv.put("before", 1)
        await waits.wait()
        subject.kv.put("after", 2)

    task = subject.begin(body)
    await turns()
    survivor = subject.survivor()
    assert await survivor.run(lambda: [survivor.get("before"), survivor.get("after")]) == [1, None]
    task.cancel()


async def test_what_an_event_wrote_before_it_raised_is_kept(subject: Subject) -> None:
    def body() -> None:
        subject.kv.put("k", 1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await subject.run(body)
    assert await subject.run(lambda: subject.get("k")) == 1


async def test_events_interleave_only_where_they_wait(subject: Subject) -> None:
    seen: list[str] = []

    async def body(name: str) -> None:
        seen.append(f"{name}1")
        subject.kv.put(name, 1)
        seen.append(f"{name}2")
        await asyncio.sleep(0)
        seen.append(f"{name}3")
        seen.append(f"{name}4")

    await asyncio.gather(subject.run(lambda: body("a")), subject.run(lambda: body("b")))
    assert seen == ["a1", "a2", "b1", "b2", "a3", "a4", "b3", "b4"]


async def test_a_cancelled_caller_leaves_the_event_running(subject: Subject) -> None:
    waits = asyncio.Event()

    async def body() -> None:
        await waits.wait()
        subject.kv.put("k", 1)

    caller = subject.begin(body)
    await turns()
    caller.cancel()
    waits.set()
    await turns()
    assert await subject.run(lambda: subject.get("k")) == 1


async def test_timeouts_and_task_groups_work_inside_an_event(subject: Subject) -> None:
    async def body() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "not"

    assert await subject.run(body) == "timed out"


async def test_an_event_that_was_not_expected_to_wait_may(subject: Subject) -> None:
    async def body() -> int:
        subject.kv.put("k", 1)
        await asyncio.sleep(0)
        return 5

    value, _ = await subject.activation.run(body, waits=False)
    assert value == 5


async def test_a_task_that_an_event_left_behind_can_use_the_storage(subject: Subject) -> None:
    async def later() -> None:
        subject.kv.put("later", 1)

    left: list[asyncio.Task[None]] = []
    await subject.run(lambda: left.append(asyncio.ensure_future(later())))
    await left[0]
    await turns()
    assert await subject.survivor().run(lambda: True)
    survivor = subject.survivor()
    assert await survivor.run(lambda: survivor.get("later")) == 1


async def test_such_a_task_is_refused_while_a_critical_section_has_the_storage(
    subject: Subject,
) -> None:
    waits = asyncio.Event()
    section = subject.begin(lambda: subject.activation.access.transaction(waits.wait))
    await turns()
    with pytest.raises(ConflictError) as caught:
        subject.kv.put("k", 1)
    assert caught.value.code == "storage_busy"
    waits.set()
    await section


# --- output gate ---


async def test_a_reply_waits_until_its_writes_are_durable(subject: Subject) -> None:
    subject.log.hold()
    task = subject.begin(lambda: subject.kv.put("k", 1))
    await turns()
    assert not task.done()
    subject.log.flush()
    await task


async def test_a_reply_that_read_what_is_not_durable_waits_too(subject: Subject) -> None:
    subject.log.hold()
    write = subject.begin(lambda: subject.kv.put("k", 1))
    await turns()
    read = subject.begin(lambda: subject.get("k"))
    await turns()
    assert not read.done()
    subject.log.flush()
    assert await read == 1
    await write


async def test_an_unconfirmed_write_holds_nothing_back(subject: Subject) -> None:
    subject.log.hold()
    await asyncio.wait_for(subject.run(lambda: subject.kv.put("k", 1, confirmed=False)), 5)
    assert subject.ground.durable_txid == 0


async def test_frames_leave_in_order_and_not_before_the_writes_before_them(
    subject: Subject,
) -> None:
    sent: list[str] = []
    emit = subject.activation.emit

    def body() -> None:
        emit(lambda: sent.append("first"))
        subject.kv.put("k", 1)
        emit(lambda: sent.append("second"))

    subject.log.hold()
    task = subject.begin(body)
    await turns()
    assert sent == ["first"], "it came before any write"
    emit(lambda: sent.append("third"))
    assert sent == ["first"]
    subject.log.flush()
    await task
    assert sent == ["first", "second", "third"]


async def test_an_outgoing_call_waits_for_the_writes_of_its_own_step(subject: Subject) -> None:
    left: list[int] = []

    async def body() -> None:
        subject.kv.put("k", 1)
        await subject.activation.outgoing()
        left.append(subject.ground.durable_txid)

    subject.log.hold()
    task = subject.begin(body)
    await turns()
    assert left == []
    subject.log.flush()
    await task
    assert left == [1]


async def test_when_the_commit_is_lost_frames_are_dropped_and_calls_fail(subject: Subject) -> None:
    sent: list[str] = []

    def body() -> None:
        subject.kv.put("k", 1)
        subject.activation.emit(lambda: sent.append("x"))

    subject.log.hold()
    task = subject.begin(body)
    await turns()
    subject.log.fail(OutcomeUnknownError("The disk is gone."))
    with pytest.raises((OutcomeUnknownError, ObjectResetError)):
        await task
    assert sent == []
    with pytest.raises(ObjectResetError):
        await subject.run(lambda: None)


# --- critical sections ---


async def test_nothing_else_runs_while_concurrency_is_blocked(subject: Subject) -> None:
    seen: list[str] = []

    async def blocked() -> None:
        for _ in range(5):
            seen.append("blocked")
            await asyncio.sleep(0)

    async def body() -> None:
        await subject.activation.sections.block_concurrency_while(blocked)
        seen.append("after")

    async def other() -> None:
        seen.append("other")

    first = subject.begin(body)
    await asyncio.sleep(0)
    second = subject.begin(other)
    await asyncio.gather(first, second)
    assert seen[:5] == ["blocked"] * 5
    assert sorted(seen[5:]) == ["after", "other"]


async def test_another_event_under_way_goes_on_only_after_the_section(subject: Subject) -> None:
    seen: list[str] = []
    ready = asyncio.Event()

    async def under_way() -> None:
        await ready.wait()
        seen.append("under way")

    async def blocked() -> None:
        ready.set()
        for _ in range(5):
            await asyncio.sleep(0)
        seen.append("blocked")

    first = subject.begin(under_way)
    await turns()
    await subject.run(lambda: subject.activation.sections.block_concurrency_while(blocked))
    await first
    assert seen == ["blocked", "under way"]


async def test_a_failing_section_resets_the_object(subject: Subject) -> None:
    async def blocked() -> None:
        raise ValueError("no")

    other = subject.begin(asyncio.Event().wait)
    await turns()
    with pytest.raises(ObjectResetError, match="ValueError: no"):
        await subject.run(lambda: subject.activation.sections.block_concurrency_while(blocked))
    with pytest.raises(ObjectResetError):
        await other
    assert subject.ground.broken is not None


async def test_a_section_that_takes_too_long_resets_the_object(subject: Subject) -> None:
    task = subject.begin(
        lambda: subject.activation.sections.block_concurrency_while(asyncio.Event().wait)
    )
    await turns()
    subject.clock.advance(SECTION_S_MAX + 1)
    with pytest.raises(OverloadedError) as caught:
        await task
    assert caught.value.code == "section_timeout"
    await turns()
    assert not subject.ground.turns.busy


async def test_sections_nest_to_a_limit(subject: Subject) -> None:
    depths: list[int] = []

    async def nested(depth: int) -> None:
        depths.append(depth)
        await subject.activation.sections.run(lambda: nested(depth + 1))

    with pytest.raises(ConflictError) as caught:
        await subject.run(lambda: nested(0))
    assert caught.value.code == "nested_too_deeply"
    assert max(depths) == SECTION_DEPTH_MAX
    assert await asyncio.wait_for(subject.run(lambda: 1), 5) == 1, "the turn was given back"


async def test_a_section_that_nobody_awaits_runs_before_the_next_event(subject: Subject) -> None:
    seen: list[str] = []

    async def load() -> None:
        await asyncio.sleep(0)
        seen.append("loaded")

    first = subject.begin(lambda: subject.activation.sections.run(load) and None)
    second = subject.begin(lambda: seen.append("event"))
    await asyncio.gather(first, second)
    assert seen == ["loaded", "event"]


async def test_a_call_to_oneself_in_a_section_is_refused_instead_of_hanging(
    subject: Subject,
) -> None:
    async def blocked() -> None:
        await subject.run(lambda: 1)

    with pytest.raises(ConflictError) as caught:
        await asyncio.wait_for(subject.run(lambda: subject.activation.sections.run(blocked)), 5)
    assert caught.value.code == "object_deadlock"


async def test_two_objects_that_wait_for_each_other_are_found(subject: Subject) -> None:
    other = Subject(subject.log, ObjectKey(bytes(32), 2))
    both = asyncio.Barrier(2)

    async def critical(of: Subject, calls: Subject) -> None:
        async def body() -> None:
            await both.wait()
            await calls.run(lambda: None)

        await of.run(lambda: of.activation.sections.run(body))

    outcomes = await asyncio.wait_for(
        asyncio.gather(critical(subject, other), critical(other, subject), return_exceptions=True),
        5,
    )
    refused = [each for each in outcomes if isinstance(each, ConflictError)]
    assert len(refused) == 1, "the other one gets its turn"
    assert refused[0].code == "object_deadlock"


async def test_an_object_can_call_itself_outside_of_sections(subject: Subject) -> None:
    async def calls() -> list[Any]:
        return [await subject.run(lambda: 1), await subject.activation.run(at_once, waits=False)]

    async def at_once() -> int:
        return 2

    (one, (two, _)) = await asyncio.wait_for(subject.run(calls), 5)
    assert (one, two) == (1, 2)


async def test_objects_that_call_each_other_while_both_are_busy_go_on(subject: Subject) -> None:
    """Neither may keep the other's turn while it waits for its own."""
    other = Subject(subject.log, ObjectKey(bytes(32), 2))
    both = asyncio.Barrier(2)

    async def calls(called: Subject) -> Any:
        await both.wait()
        return await called.run(lambda: 1)

    def begin(caller: Subject, called: Subject) -> asyncio.Task[Any]:
        return caller.begin(lambda: calls(called))

    tasks = [begin(subject, other), begin(other, subject)]
    sections = [
        subject.begin(lambda: subject.activation.sections.run(turns)),
        other.begin(lambda: other.activation.sections.run(turns)),
    ]
    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [1, 1]
    await asyncio.gather(*sections)


async def test_a_call_that_is_given_up_before_its_turn_does_not_keep_it(subject: Subject) -> None:
    other = Subject(subject.log, ObjectKey(bytes(32), 2))
    opened = asyncio.Event()
    section = other.begin(lambda: other.activation.sections.run(opened.wait))
    await turns()

    async def impatient() -> str:
        try:
            async with asyncio.timeout(0):
                await other.run(lambda: pytest.fail("nobody waits for it"))
        except TimeoutError:
            return "given up"
        return "answered"

    assert await asyncio.wait_for(subject.run(impatient), 5) == "given up"
    opened.set()
    await section
    assert not other.ground.turns.busy
    assert other.ground.turns.waiting == 0


async def test_an_event_that_has_ended_is_not_kept_by_those_it_led_to(subject: Subject) -> None:
    """Else an object that is never at rest would grow for ever."""
    lines: list[int] = []
    done = asyncio.Event()

    async def event() -> None:
        current = current_event.get()
        assert current is not None
        lines.append(len(list(current.line())))
        if len(lines) < 10:
            subject.activation.spawn(subject.run(event))
        else:
            done.set()
        await asyncio.sleep(0)

    await subject.run(event)
    await asyncio.wait_for(done.wait(), 5)
    assert max(lines) <= 3


async def test_calls_side_by_side_are_no_deadlock(subject: Subject) -> None:
    other = Subject(subject.log, ObjectKey(bytes(32), 2))

    async def slow() -> int:
        await asyncio.sleep(0)
        return 1

    async def body() -> list[Any]:
        return await asyncio.gather(
            *(other.run(lambda: other.activation.sections.run(slow)) for _ in range(3))
        )

    assert await asyncio.wait_for(subject.run(body), 5) == [1, 1, 1]


# --- transactions ---


async def test_a_transaction_is_undone_as_a_whole_when_it_raises(subject: Subject) -> None:
    async def body() -> None:
        subject.kv.put("a", 1)
        await asyncio.sleep(0)
        subject.kv.put("b", 2)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await subject.run(lambda: subject.activation.access.transaction(body))
    assert await subject.run(lambda: [subject.get("a"), subject.get("b")]) == [None, None]


async def test_a_crash_in_a_transaction_leaves_nothing_of_it(subject: Subject) -> None:
    waits = asyncio.Event()

    async def body() -> None:
        subject.kv.put("a", 1)
        await waits.wait()
        subject.kv.put("b", 2)

    task = subject.begin(lambda: subject.activation.access.transaction(body))
    await turns()
    survivor = subject.survivor()
    assert await survivor.run(lambda: survivor.get("a")) is None
    task.cancel()


async def test_transactions_nest_and_the_inner_one_can_be_undone_alone(subject: Subject) -> None:
    async def inner() -> None:
        subject.kv.put("inner", 1)
        raise ValueError("no")

    async def outer() -> None:
        subject.kv.put("outer", 1)
        with pytest.raises(ValueError, match="no"):
            await subject.activation.access.transaction(inner)

    await subject.run(lambda: subject.activation.access.transaction(outer))
    assert await subject.run(lambda: [subject.get("outer"), subject.get("inner")]) == [1, None]


async def test_a_synchronous_transaction_is_undone_alone(subject: Subject) -> None:
    def inner() -> None:
        subject.kv.put("inner", 1)
        raise ValueError("no")

    def body() -> None:
        subject.kv.put("outer", 1)
        with pytest.raises(ValueError, match="no"):
            subject.activation.access.transaction_sync(inner)

    await subject.run(body)
    assert await subject.run(lambda: [subject.get("outer"), subject.get("inner")]) == [1, None]


async def test_a_frame_from_a_transaction_waits_for_its_commit(subject: Subject) -> None:
    sent: list[str] = []
    waits = asyncio.Event()

    async def body() -> None:
        subject.kv.put("a", 1)
        subject.activation.emit(lambda: sent.append("x"))
        await waits.wait()

    task = subject.begin(lambda: subject.activation.access.transaction(body))
    await turns()
    assert sent == []
    waits.set()
    await task
    assert sent == ["x"]


async def test_work_on_a_thread_keeps_everybody_else_out(subject: Subject) -> None:
    seen: list[str] = []

    async def body() -> None:
        rows = await subject.activation.access.on_thread(lambda db: db.query("SELECT 1").rows)
        seen.append(f"rows {rows}")

    first = subject.begin(body)
    await asyncio.sleep(0)
    second = subject.begin(lambda: seen.append("other"))
    await asyncio.gather(first, second)
    assert sorted(seen) == ["other", "rows [(1,)]"]


# --- the end ---


async def test_abort_undoes_the_step_and_cannot_be_caught(subject: Subject) -> None:
    reached: list[str] = []

    def body() -> None:
        subject.kv.put("k", 1)
        try:
            subject.activation.abort("enough")
        except Exception:
            reached.append("caught")
        reached.append("went on")

    with pytest.raises(ObjectResetError, match="enough"):
        await subject.run(body)
    assert reached == []
    survivor = subject.survivor()
    assert await survivor.run(lambda: survivor.get("k")) is None


async def test_a_constraint_that_fails_at_the_commit_resets_the_object(subject: Subject) -> None:
    def tables() -> None:
        subject.sql.exec("CREATE TABLE a(id INTEGER PRIMARY KEY)")
        subject.sql.exec("CREATE TABLE b(a INTEGER REFERENCES a(id) DEFERRABLE INITIALLY DEFERRED)")

    await subject.run(tables)
    with pytest.raises(ObjectResetError, match="could not be committed"):
        await subject.run(lambda: subject.sql.exec("INSERT INTO b VALUES (7)"))
    survivor = subject.survivor()
    count = await survivor.run(lambda: survivor.sql.exec("SELECT count(*) AS n FROM b").one())
    assert count == {"n": 0}


async def test_a_transaction_that_sqlite_ended_resets_the_object_even_if_that_is_caught(
    subject: Subject,
) -> None:
    await subject.run(lambda: subject.sql.exec("CREATE TABLE t(a UNIQUE)"))

    def body() -> None:
        subject.sql.exec("INSERT INTO t VALUES (1)")
        with pytest.raises(SqlError):
            subject.sql.exec("INSERT OR ROLLBACK INTO t VALUES (1)")

    with pytest.raises(ObjectResetError, match="rolled the transaction"):
        await subject.run(body)


async def test_after_a_reset_the_code_of_other_events_does_not_run_on(subject: Subject) -> None:
    reached: list[str] = []

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        except Exception:
            reached.append("caught")
        finally:
            reached.append("finally")

    task = subject.begin(other)
    await turns()
    with pytest.raises(ObjectResetError):
        await subject.run(lambda: subject.activation.abort(None))
    with pytest.raises(ObjectResetError):
        await task
    assert reached == ["finally"]
    assert not subject.ground.turns.busy


async def test_a_timeout_that_comes_while_the_turn_is_awaited_reaches_the_code(
    subject: Subject,
) -> None:
    waits, ready = asyncio.Event(), asyncio.Event()

    async def timed() -> str:
        try:
            async with asyncio.timeout(0.01):
                await ready.wait()
        except TimeoutError:
            return "timed out"
        return "in time"

    async def critical() -> None:
        ready.set()
        await waits.wait()

    event = subject.begin(timed)
    await turns()
    section = subject.begin(lambda: subject.activation.sections.run(critical))
    asyncio.get_running_loop().call_later(0.05, waits.set)
    await section
    assert await event == "timed out"
