"""When what is merged: driven by writes, silent without them, and never for what is not ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

import dosql.host.compaction_objects
from dosql.host.compaction import Compaction
from dosql.log.records import ObjectKey
from dosql.pages import PageSet
from dosql.replica.bucket_errors import BucketUnavailableError
from dosql.replica.bucket_usage import BucketUsage
from dosql.replica.layout import Layout
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import SNAPSHOT_LEVEL, restore_plan
from dosql.replica.recent_files import RecentFiles
from dosql.replica.replica import Replica
from dosql.replica.retention import RetentionSettings
from dosql.testing.clock import ManualClock

T = TypeVar("T")
HOUR_S = 3_600
KEY = ObjectKey(bytes(32), 1)


class Node:
    """Objects that are shipped, without databases: any pages will do."""

    def __init__(self, tmp: Path) -> None:
        self.clock = ManualClock()
        self.bucket = MemoryBucket(clock=self.clock)
        self.recent = RecentFiles()
        self.stalled = False
        self.running = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.txids: dict[ObjectKey, int] = {}
        self.compaction = Compaction(
            self,
            scratch=tmp,
            clock=self.clock,
            timers=self.clock,
            retention=RetentionSettings(),
        )

    def replica(self, key: ObjectKey) -> Replica:
        path = f"objects/{key.id.hex()}-{key.incarnation:016x}"
        return Replica(self.bucket, Layout(path), self.recent)

    def is_stalled(self) -> bool:
        return self.stalled

    async def on_thread(self, work: Callable[[], T]) -> T:
        """In the loop's own thread: time stands still meanwhile."""
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            return work()
        finally:
            self.running -= 1

    def ship(self, key: ObjectKey = KEY, *, pages: int = 1) -> None:
        """One commit."""
        txid = self.txids[key] = self.txids.get(key, 0) + 1
        first = txid == 1
        content = {
            n: bytes([txid % 256, n % 256]) * 256 for n in range(1, 41 if first else pages + 1)
        }
        now = self.clock.now_ms()
        batch = PageSet(512, 40, content)
        for file in self.replica(key).put(batch, txid, txid, timestamp_ms=now, epoch=1):
            self.compaction.shipped(key, file)

    def spans(self, level: int, key: ObjectKey = KEY) -> list[tuple[int, int]]:
        files = self.replica(key).listing(level)
        return [(file.min_txid, file.max_txid) for file in files]

    async def requests(self, seconds: float) -> BucketUsage:
        """What the bucket was asked while so much time passed."""
        before = self.bucket.usage
        await self.clock.pass_time(seconds)
        return self.bucket.usage - before


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running(tmp_path) as node:
        yield node


@asynccontextmanager
async def running(tmp: Path) -> AsyncIterator[Node]:
    node = Node(tmp)
    try:
        yield node
    finally:
        node.gate.set()
        await node.compaction.close()


async def test_files_are_merged_when_their_spans_have_ended(node: Node) -> None:
    for _ in range(4):
        node.ship()
        await node.clock.pass_time(5)
    assert node.spans(1) == []
    await node.clock.pass_time(15)
    assert node.spans(1) == [(2, 4)]
    node.ship()
    node.ship()
    await node.clock.pass_time(300)
    assert (node.spans(1), node.spans(2)) == ([(2, 4), (5, 6)], [(2, 6)])
    node.ship()
    await node.clock.pass_time(HOUR_S)
    assert node.spans(1) == [(2, 4), (5, 6)]
    assert node.spans(3) == [(2, 7)]
    assert node.compaction.statistics.compactions == 4


async def test_an_idle_object_causes_no_request_and_is_forgotten(node: Node) -> None:
    for _ in range(20):
        node.ship()
        await node.clock.pass_time(7)
    await node.clock.pass_time(2 * HOUR_S)
    assert (await node.requests(60 * 24 * HOUR_S)).requests == 0
    assert node.compaction.known == 0
    assert node.clock.pending == []


async def test_one_write_causes_no_request_but_its_own(node: Node) -> None:
    for number in range(20):
        node.ship(ObjectKey(bytes([number]) * 32, 1))
    assert (await node.requests(48 * HOUR_S)).requests == 0
    assert node.compaction.known == 0


async def test_a_merge_reads_nothing_back_that_was_written_a_moment_ago(node: Node) -> None:
    used = BucketUsage()
    for _ in range(200):
        node.ship()
        used = await node.requests(1)
        assert (used.gets, used.lists, used.heads) == (0, 0, 0)
    assert len(node.spans(1)) >= 6


async def test_what_a_thousand_writes_cost(node: Node) -> None:
    """Ten per second; everything included, also two sweeps."""
    before = node.bucket.usage
    for number in range(3_000):
        node.ship(pages=1 + number % 7)
        await asyncio.sleep(0)
        node.clock.advance(0.1)
        if number % 100 == 0:
            await node.clock.settle()
    await node.clock.pass_time(3 * 24 * HOUR_S)
    used = node.bucket.usage - before
    print(f"per 1,000 writes: {used}")
    assert used.requests <= 3_000 * 1.05
    assert node.spans(0)[-1] == (3_000, 3_000)
    assert len(node.spans(0)) == 2, "the image and the newest"


async def test_an_object_written_now_and_then_is_looked_at_now_and_then(node: Node) -> None:
    """Its files are too far apart to be merged by time; a snapshot bounds their number."""
    lists = 0
    for _ in range(200):
        node.ship()
        lists += (await node.requests(2 * HOUR_S)).lists
    assert lists <= 2 * 5 * 200 / 64
    plan = restore_plan(node.replica(KEY).files())
    assert plan[0].level == SNAPSHOT_LEVEL and len(plan) < 140
    assert node.compaction.statistics.snapshots >= 1


async def test_a_sweep_follows_a_burst_a_day_later_and_none_after_it(node: Node) -> None:
    for _ in range(300):
        node.ship()
        node.clock.advance(0.5)
        await asyncio.sleep(0)
    await node.clock.pass_time(2 * HOUR_S)
    assert len(node.spans(0)) == 300
    assert (await node.requests(20 * HOUR_S)).requests == 0
    swept = await node.requests(24 * HOUR_S)
    assert (swept.puts, swept.gets, swept.lists, swept.deletes) == (0, 0, 5, 1)
    assert node.spans(0) == [(1, 1), (300, 300)]
    assert (await node.requests(100 * 24 * HOUR_S)).requests == 0


async def test_two_objects_are_worked_on_at_a_time(node: Node) -> None:
    keys = [ObjectKey(bytes([number]) * 32, 1) for number in range(9)]
    for key in keys:
        for _ in range(3):
            node.ship(key)
    node.gate.clear()
    await node.clock.pass_time(40)
    assert node.running == 2
    node.gate.set()
    await node.compaction.settled()
    assert node.most == 2
    assert all(node.spans(1, key) == [(2, 3)] for key in keys)


async def test_nothing_is_asked_of_a_bucket_that_does_not_answer_the_shipper(node: Node) -> None:
    for _ in range(3):
        node.ship()
    node.stalled = True
    assert (await node.requests(600)).requests == 0
    node.stalled = False
    await node.clock.pass_time(60)
    assert node.spans(1) == [(2, 3)]


async def test_a_failure_pauses_all_and_is_made_good(node: Node) -> None:
    attempts = 0

    def fault(operation: str, key: str) -> None:
        nonlocal attempts
        attempts += 1
        raise BucketUnavailableError("injected")

    keys = [ObjectKey(bytes([number]) * 32, 1) for number in range(9)]
    for key in keys:
        for _ in range(3):
            node.ship(key)
    node.bucket.fault = fault
    await node.clock.pass_time(35)
    assert attempts <= 9
    before = attempts
    await node.clock.pass_time(25)
    assert attempts == before, "it waits"
    node.bucket.fault = lambda operation, key: None
    await node.clock.pass_time(60)
    assert all(node.spans(1, key) == [(2, 3)] for key in keys)


async def test_a_file_that_another_server_wrote_is_found_by_looking(node: Node) -> None:
    node.ship()
    node.ship()
    node.txids[KEY] += 1
    fence = PageSet(512, 40, {})
    now = node.clock.now_ms()
    node.replica(KEY).put(fence, 3, 3, timestamp_ms=now, epoch=2)
    for _ in range(70):
        node.ship()
    await node.clock.pass_time(600)
    assert restore_plan(node.replica(KEY).files())[-1].max_txid == 73
    assert node.compaction.statistics.failures == 0


async def test_a_damaged_file_is_reported_and_not_merged(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        node.ship()
    replica = node.replica(KEY)
    key = replica.layout.key(0, 3, 3)
    data = bytearray(node.bucket.get(key))
    data[130] ^= 1
    node.bucket.put(key, bytes(data))
    node.recent.forget(key)
    await node.clock.pass_time(HOUR_S)
    assert node.spans(1) == []
    assert node.compaction.statistics.failures == 1
    assert "is not compacted" in caplog.text


async def test_nothing_is_written_for_an_object_that_was_taken_over(node: Node) -> None:
    for _ in range(5):
        node.ship()
    node.gate.clear()
    await node.clock.pass_time(33)
    assert node.running == 1
    node.compaction.forget(KEY)
    before = node.bucket.usage
    node.gate.set()
    await node.clock.pass_time(HOUR_S)
    assert (node.bucket.usage - before).requests == 0
    assert node.spans(1) == []


async def test_nothing_is_left_of_an_object_that_was_deleted_while_it_was_merged(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merge is in its last request when the files are removed."""
    for _ in range(5):
        node.ship()
    put = node.bucket.put

    def late(key: str, *arguments: object, **options: object) -> object:
        node.replica(KEY).remove()
        node.compaction.dropped(KEY)
        return put(key, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(node.bucket, "put", late)
    await node.clock.pass_time(40)
    assert list(node.bucket.list("")) == []
    assert (await node.requests(10 * HOUR_S)).requests == 0


async def test_a_close_stops_in_the_middle_and_loses_nothing(node: Node) -> None:
    for _ in range(5):
        node.ship()
    node.gate.clear()
    await node.clock.pass_time(33)
    closing = asyncio.create_task(node.compaction.close())
    await node.clock.settle()
    assert not closing.done()
    node.gate.set()
    await closing
    assert node.spans(1) == []
    assert restore_plan(node.replica(KEY).files())[-1].max_txid == 5
    node.ship()
    assert (await node.requests(HOUR_S)).requests == 0


async def test_memory_is_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dosql.host.compaction_objects, "COMPACTION_OBJECTS_MAX", 10)
    for number in range(50):
        node.ship(ObjectKey(bytes([number]) * 32, 1))
    assert node.compaction.known == 10
    await node.clock.pass_time(HOUR_S)
    assert node.compaction.known == 0
