"""One object's way to the bucket: order, retries, fences, gaps and pace."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dosql.errors import OutcomeUnknownError, UnavailableError
from dosql.limits import REPLICA_COALESCE_FROM, REPLICA_FILES_BURST
from dosql.pages import PageSet
from dosql.replica.bucket_errors import BucketOutcomeUnknownError, BucketUnavailableError
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.replica import Head
from dosql.replica.spool import joined
from dosql.testing.clock import ManualClock
from tests.replica.shipping import OURS, PAGE, THEIRS, Alone, batch, page
from tests.support.buckets import WrappedBucket
from tests.support.cold import SwitchedBucket
from tests.support.hosts import until


@pytest.fixture
def bucket() -> SwitchedBucket:
    return SwitchedBucket(MemoryBucket())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def alone(
    bucket: SwitchedBucket, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Alone]:
    """Replies wait for the bucket: no pace."""
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_RETRY_S_MAX", 0.02)
    alone = Alone(bucket, clock, tmp_path, paced=False)
    yield alone
    bucket.let_go()
    await alone.close()


@pytest.fixture
async def paced(
    bucket: SwitchedBucket, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Alone]:
    """Nobody waits."""
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_RETRY_S_MAX", 0.02)
    alone = Alone(bucket, clock, tmp_path, paced=True)
    yield alone
    bucket.let_go()
    await alone.close()


def content(alone: Alone, txid: int | None = None) -> bytes:
    """The restored database."""
    out = io.BytesIO()
    alone.shipment.replica.write_image(out, txid)
    return out.getvalue()


async def test_batches_arrive_in_order_one_file_each(alone: Alone) -> None:
    alone.add(*range(1, 21))
    await alone.shipment.reached(20)
    assert alone.spans() == [(txid, txid) for txid in range(1, 21)]
    for txid in (1, 7, 20):
        assert content(alone, txid) == page(txid) + page(1)
    assert not alone.shipment.is_behind
    assert len(alone.sizes) == 20


async def test_one_file_is_under_way_at_a_time(alone: Alone, bucket: SwitchedBucket) -> None:
    bucket.hold()
    alone.add(1, 2, 3)
    await until(lambda: len(bucket.puts) == 1)
    alone.add(4)
    await asyncio.sleep(0.02)
    assert len(bucket.puts) == 1
    bucket.let_go()
    await alone.shipment.reached(4)
    assert bucket.puts == sorted(bucket.puts)


class LostReplies(WrappedBucket):
    """Every other write takes effect and says that nobody knows."""

    count = 0

    def put(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        info = self.inner.put(*args, **kwargs)
        self.count += 1
        if self.count % 2:
            raise BucketOutcomeUnknownError("injected: the reply was lost")
        return info


class Forgetful(WrappedBucket):
    """Every write takes effect, its first reply is lost, and so is the first look for it."""

    def __init__(self, inner: MemoryBucket) -> None:
        super().__init__(inner)
        self.seen: set[str] = set()

    def put(self, key, *args, **kwargs):  # type: ignore[no-untyped-def]
        if key not in self.seen:
            self.inner.put(key, *args, **kwargs)
            self.seen.add(key)
            raise BucketUnavailableError("injected: says that nothing happened, which is wrong")
        return self.inner.put(key, *args, **kwargs)


@pytest.mark.parametrize("kind", [LostReplies, Forgetful])
async def test_a_file_of_ones_own_earlier_attempt_is_no_fence(
    kind: type[LostReplies] | type[Forgetful],
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_RETRY_S_MAX", 0.02)
    alone = Alone(kind(MemoryBucket()), clock, tmp_path, paced=False)
    alone.add(*range(1, 11))
    await alone.shipment.reached(10)
    assert alone.shipment.failed is None
    assert alone.spans() == [(txid, txid) for txid in range(1, 11)]
    await alone.close()


async def test_the_same_job_is_tried_again_though_more_has_come(
    alone: Alone, bucket: SwitchedBucket
) -> None:
    """Else its first attempt, if it took effect after all, would look like another's file."""
    bucket.hold()
    alone.add(1)
    await until(lambda: len(bucket.puts) == 1)
    bucket.away = True
    bucket.let_go()
    alone.add(2, 3)
    await until(lambda: alone.shipment.stalled_since is not None)
    bucket.away = False
    await alone.shipment.reached(3)
    assert len(set(bucket.puts[:2])) == 1
    assert alone.spans() == [(1, 1), (2, 2), (3, 3)]


async def test_a_file_of_another_under_the_next_name_ends_the_shipment(alone: Alone) -> None:
    alone.add(1)
    await alone.shipment.reached(1)
    other = alone.shipment.replica
    head = other.head()
    assert head is not None
    other.fence(head, timestamp_ms=5, epoch=THEIRS)
    alone.add(2)
    with pytest.raises(UnavailableError) as raised:
        await alone.shipment.reached(2)
    assert raised.value.code == "object_moved"
    assert alone.fences == 1
    alone.add(3)
    with pytest.raises(UnavailableError):
        await alone.shipment.reached(3)
    assert [span for span in alone.spans() if span[0] > 2] == []
    head = other.head()
    assert head is not None
    assert head.epoch == THEIRS


async def test_whoever_waits_when_it_is_fenced_is_told(
    alone: Alone, bucket: SwitchedBucket
) -> None:
    alone.add(1)
    await alone.shipment.reached(1)
    bucket.hold()
    alone.add(2)
    waiters = [asyncio.create_task(alone.shipment.reached(2)) for _ in range(3)]
    await until(lambda: len(bucket.puts) == 2)
    inner = alone.shipment.replica
    inner = type(inner)(bucket.inner, inner.layout)
    inner.fence(Head(1, OURS, PAGE, 2, 1_000), timestamp_ms=5, epoch=THEIRS)
    bucket.let_go()
    for waiter in waiters:
        with pytest.raises(UnavailableError) as raised:
            await waiter
        assert raised.value.code == "object_moved"


async def test_a_bucket_whose_newest_file_is_anothers_is_not_written(alone: Alone) -> None:
    """Found out by the first look, before anything is sent."""
    replica = alone.shipment.replica
    replica.put(batch(1).pages, 1, 1, timestamp_ms=1, epoch=THEIRS)
    alone.add(1, 2)
    with pytest.raises(UnavailableError):
        await alone.shipment.reached(2)
    assert alone.spans() == [(1, 1)]


@pytest.mark.parametrize(("theirs", "ours"), [(3, [1, 2]), (2, [2, 3])])
async def test_an_older_state_of_the_same_directory_is_not_mistaken_for_the_owner(
    theirs: int, ours: list[int], alone: Alone
) -> None:
    """The epoch is of the same directory; the bucket is ahead, or has another batch."""
    replica = alone.shipment.replica
    for txid in range(1, theirs + 1):
        pages = batch(txid).pages
        replica.put(pages, txid, txid, timestamp_ms=txid * 1_000 + 7, epoch=OURS - 1)
    alone.add(*ours)
    with pytest.raises(UnavailableError) as raised:
        await alone.shipment.reached(ours[-1])
    assert raised.value.code == "object_moved"
    assert len(alone.spans()) == theirs


async def test_an_earlier_run_of_the_same_directory_is_continued(alone: Alone) -> None:
    replica = alone.shipment.replica
    for txid in (1, 2):
        pages = batch(txid).pages
        replica.put(pages, txid, txid, timestamp_ms=txid * 1_000, epoch=OURS - 1)
    alone.add(2, 3)
    await alone.shipment.reached(3)
    assert alone.spans() == [(1, 1), (2, 2), (3, 3)]
    assert content(alone) == page(3) + page(1)


async def test_a_gap_before_the_spool_is_filled_by_an_image(alone: Alone) -> None:
    alone.add(1)
    await alone.shipment.reached(1)
    alone.add(4)
    await alone.shipment.reached(4)
    assert alone.spans() == [(1, 1), (2, 2), (3, 4)]
    assert content(alone) == page(4) + page(1)
    alone.add(5)
    await alone.shipment.reached(5)
    assert alone.images == [(2, 4)]
    assert content(alone) == page(5) + page(1)


async def test_a_spool_that_was_dropped_is_replaced_by_an_image(
    alone: Alone, bucket: SwitchedBucket
) -> None:
    alone.add(1)
    await alone.shipment.reached(1)
    bucket.away = True
    alone.add(2, 3, 4)
    alone.shipment.drop_spool()
    assert alone.shipment.spool_bytes == 0
    bucket.away = False
    await alone.shipment.reached(4)
    assert content(alone) == page(4) + page(1)
    assert alone.shipment.failed is None


async def test_without_anything_to_send_it_ends_quietly(alone: Alone) -> None:
    """The object is gone: there is no image."""
    alone.shipment.start(3)
    await until(lambda: not alone.shipment.is_moving)
    assert alone.spans() == []
    assert alone.shipment.is_behind


async def test_nothing_of_an_object_goes_before_the_catalog_knows_of_it(
    alone: Alone, bucket: SwitchedBucket
) -> None:
    alone.catalog.clear()
    alone.add(1, catalog_txid=9)
    await asyncio.sleep(0.02)
    assert bucket.puts == []
    alone.catalog.set()
    await alone.shipment.reached(1)


async def test_a_stall_refuses_writes_after_a_while_and_ends_with_the_next_success(
    alone: Alone, bucket: SwitchedBucket, clock: ManualClock
) -> None:
    bucket.away = True
    alone.add(1)
    await until(lambda: alone.shipment.stalled_since is not None)
    early = alone.shipment.refusal
    clock.advance(60)
    refusal = alone.shipment.refusal
    assert early is None
    assert refusal is not None
    assert refusal.code == "bucket_unavailable"
    with pytest.raises(OutcomeUnknownError) as raised:
        await alone.shipment.reached(1, 0.01)
    assert raised.value.code == "bucket_unavailable"
    bucket.away = False
    await alone.shipment.reached(1)
    assert alone.shipment.refusal is None
    assert alone.shipment.stalled_since is None


async def test_what_ended_sends_nothing_more(alone: Alone, bucket: SwitchedBucket) -> None:
    bucket.away = True
    alone.add(1, 2)
    await until(lambda: alone.shipment.stalled_since is not None)
    await alone.shipment.end()
    bucket.away = False
    alone.add(3)
    await asyncio.sleep(0.02)
    assert alone.spans() == []


# --- pace -------------------------------------------------------------------------------------


async def test_where_nobody_waits_many_batches_become_one_file(
    paced: Alone, bucket: SwitchedBucket
) -> None:
    bucket.hold()
    paced.add(1)
    await until(lambda: len(bucket.puts) == 1)
    paced.add(*range(2, REPLICA_COALESCE_FROM + 10))
    bucket.let_go()
    await paced.shipment.reached(REPLICA_COALESCE_FROM + 9)
    assert paced.spans() == [(1, 1), (2, 2), (3, REPLICA_COALESCE_FROM + 9)]
    assert content(paced) == page(REPLICA_COALESCE_FROM + 9) + page(1)


async def test_where_replies_wait_no_file_holds_more_than_one_batch(
    alone: Alone, bucket: SwitchedBucket
) -> None:
    bucket.hold()
    alone.add(1)
    await until(lambda: len(bucket.puts) == 1)
    alone.add(*range(2, REPLICA_COALESCE_FROM + 10))
    bucket.let_go()
    await alone.shipment.reached(REPLICA_COALESCE_FROM + 9)
    assert all(first == last for first, last in alone.spans())


async def test_beyond_the_burst_there_is_a_file_per_second(
    paced: Alone, clock: ManualClock
) -> None:
    for txid in range(1, REPLICA_FILES_BURST + 1):
        paced.add(txid)
        await until(lambda txid=txid: paced.shipment.shipped_txid == txid)  # type: ignore[misc]
    clock.advance(0.01)
    paced.add(REPLICA_FILES_BURST + 1, REPLICA_FILES_BURST + 2)
    await asyncio.sleep(0.05)
    assert paced.shipment.shipped_txid == REPLICA_FILES_BURST
    paced.add(REPLICA_FILES_BURST + 3)
    await paced.shipment.reached(REPLICA_FILES_BURST + 3)  # whoever waits makes it go at once
    assert paced.spans()[-1] == (REPLICA_FILES_BURST + 2, REPLICA_FILES_BURST + 3)
    clock.advance(10)
    paced.add(REPLICA_FILES_BURST + 4)
    await until(lambda: paced.shipment.shipped_txid == REPLICA_FILES_BURST + 4)


def test_joined_batches_bring_nothing_that_was_cut_off_in_between() -> None:
    """The database shrinks and grows again: what stood there before must not come back."""
    page = bytes(512)
    pages = joined(
        [
            PageSet(512, 3, {1: page, 2: page, 3: b"old".ljust(512)}),
            PageSet(512, 2, {1: page}),
            PageSet(512, 4, {1: page, 4: b"new".ljust(512)}),
        ]
    )
    assert (pages.commit, list(pages.pages)) == (4, [1, 2, 4])
