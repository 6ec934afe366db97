"""All shipments of a node: groups of the log, the spool's bound, deletions, the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dosql.errors import UnavailableError
from dosql.log.records import Batch, Drop, ObjectKey
from dosql.replica.image_file import ImageFile, make_raw_image
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import RAW_LEVEL
from dosql.replica.replica import Replica
from dosql.replica.shipper import Shipper
from dosql.testing.clock import ManualClock
from tests.replica.shipping import OURS, PAGE, THEIRS, batch, page
from tests.support.cold import SwitchedBucket
from tests.support.hosts import until

CATALOG = ObjectKey(b"\x00" * 32, 0)
ONE, TWO = ObjectKey(b"\x01" * 32, 1), ObjectKey(b"\x02" * 32, 2)


class Node:
    """A shipper, and what the test says the objects hold."""

    def __init__(self, bucket: SwitchedBucket, scratch: Path, *, paced: bool = False) -> None:
        self.newest: dict[ObjectKey, int] = {}
        self.fenced: list[ObjectKey] = []
        self._scratch = scratch
        self._paced = paced
        self.shipper = Shipper(
            bucket,
            prefix="objects/",
            directory=False,
            epoch=OURS,
            clock=ManualClock(),
            catalog=CATALOG,
            make_image=self._image,
            on_fenced=self.fenced.append,
        )

    def append(self, *records: Batch | Drop) -> None:
        """One group of the commit log."""
        for record in records:
            if isinstance(record, Batch):
                self.newest[record.key] = record.txid
                self.shipper.shipment(record.key).hurry(not self._paced)
        self.shipper.appended(records)

    def spans(self, key: ObjectKey) -> list[tuple[int, int]]:
        """Of the files in the bucket."""
        found = self.shipper.replica(key).listing(RAW_LEVEL)
        return [(file.min_txid, file.max_txid) for file in found]

    async def drained(self) -> None:
        """Return when the bucket has everything."""
        assert await self.shipper.drain(10) == []

    async def _image(self, key: ObjectKey, min_txid: int) -> ImageFile | None:
        database = self._scratch / f"{key.id.hex()}.database"
        database.write_bytes(page(self.newest[key]) + page(1))
        return make_raw_image(
            database,
            database.with_suffix(".ltx"),
            page_size=PAGE,
            min_txid=min_txid,
            txid=self.newest[key],
            timestamp_ms=1_000 * self.newest[key],
            epoch=OURS,
        )


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> SwitchedBucket:
    for module in ("shipment", "shipper"):
        monkeypatch.setattr(f"dosql.replica.{module}.REPLICA_RETRY_S_MAX", 0.02)
    return SwitchedBucket(MemoryBucket())


@pytest.fixture
async def node(bucket: SwitchedBucket, tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(bucket, tmp_path)
    yield node
    bucket.let_go()
    await node.shipper.close()


async def test_what_the_log_has_comes_to_the_bucket_object_by_object(node: Node) -> None:
    node.append(batch(1, ONE), batch(1, TWO))
    node.append(batch(2, TWO), batch(2, ONE), batch(1, CATALOG))
    await node.drained()
    assert node.spans(ONE) == node.spans(TWO) == [(1, 1), (2, 2)]
    assert node.spans(CATALOG) == [(1, 1)]
    assert node.shipper.statistics().objects_behind == 0
    assert node.shipper.statistics().spool_bytes == 0
    assert node.shipper.statistics().files == 5


async def test_an_object_waits_for_the_catalog_s_change_of_this_or_an_earlier_group(
    node: Node, bucket: SwitchedBucket
) -> None:
    bucket.hold()
    node.append(batch(1, ONE), batch(1, CATALOG))
    node.append(batch(1, TWO))
    await until(lambda: len(bucket.puts) == 1)
    await asyncio.sleep(0.02)
    prefix = node.shipper.replica(CATALOG).layout.prefix
    assert [key for key in bucket.puts if not key.startswith(prefix)] == []
    bucket.let_go()
    await node.drained()
    assert node.spans(ONE) == node.spans(TWO) == [(1, 1)]


async def test_the_largest_spool_is_given_up_when_all_together_are_too_large(
    node: Node, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its object comes as an image instead."""
    monkeypatch.setattr("dosql.replica.shipper.REPLICA_SPOOL_BYTES_MAX", 10 * PAGE)
    node.append(batch(1, ONE), batch(1, TWO))
    await node.drained()
    bucket.away = True
    node.append(batch(2, TWO))
    for txid in range(2, 40):
        node.append(batch(txid, ONE))
    assert node.shipper.statistics().spool_bytes <= 10 * PAGE
    assert node.shipper.statistics().objects_behind == 2
    bucket.away = False
    await node.drained()
    assert node.spans(TWO) == [(1, 1), (2, 2)]
    assert max(last for _, last in node.spans(ONE)) == 39
    assert len(node.spans(ONE)) < 20


async def test_a_dropped_object_leaves_the_bucket_and_sends_nothing_more(
    node: Node, bucket: SwitchedBucket
) -> None:
    node.append(batch(1, ONE))
    await node.drained()
    bucket.hold()
    node.append(batch(2, ONE))
    await until(lambda: len(bucket.puts) == 2)
    node.append(batch(1, CATALOG), Drop(ONE), batch(3, ONE))
    bucket.let_go()
    await node.drained()
    await until(lambda: node.spans(ONE) == [])
    assert node.shipper.find(ONE) is None


async def test_files_go_when_the_bucket_is_back(node: Node, bucket: SwitchedBucket) -> None:
    node.append(batch(1, ONE))
    await node.drained()
    bucket.away = True
    node.append(batch(1, CATALOG), Drop(ONE))
    await node.shipper.drain(0.05)
    bucket.away = False
    await until(lambda: node.spans(ONE) == [])


async def test_a_server_that_lost_its_catalog_removes_nothing(node: Node) -> None:
    node.append(batch(1, CATALOG), batch(1, ONE))
    await node.drained()
    catalog = node.shipper.replica(CATALOG)
    head = catalog.head()
    assert head is not None
    catalog.fence(head, timestamp_ms=5, epoch=THEIRS)
    node.append(batch(2, CATALOG), Drop(ONE))
    await until(lambda: node.fenced == [CATALOG])
    await node.shipper.drain(0.1)
    assert node.spans(ONE) == [(1, 1)]


async def test_nothing_is_sent_before_it_is_known_whose_the_catalog_is(
    node: Node, bucket: SwitchedBucket
) -> None:
    """A server that was started while the bucket was away, and another one had taken over."""
    catalog = Replica(bucket.inner, node.shipper.replica(CATALOG).layout)
    catalog.put(batch(1).pages, 1, 1, timestamp_ms=1, epoch=THEIRS)
    bucket.away = True
    node.shipper.shipment(CATALOG).start(3)
    node.append(batch(1, ONE), batch(1, TWO))
    await until(lambda: node.shipper.is_stalled())
    bucket.away = False
    for key in (ONE, TWO):
        shipment = node.shipper.find(key)
        assert shipment is not None
        with pytest.raises(UnavailableError) as raised:
            await shipment.reached(1)
        assert raised.value.code == "object_moved"
    assert node.fenced == [CATALOG]
    assert bucket.puts == []


async def test_one_object_s_fence_is_nothing_to_the_others(node: Node) -> None:
    node.append(batch(1, ONE), batch(1, TWO))
    await node.drained()
    replica = node.shipper.replica(ONE)
    head = replica.head()
    assert head is not None
    replica.fence(head, timestamp_ms=5, epoch=THEIRS)
    node.append(batch(2, ONE), batch(2, TWO))
    await until(lambda: node.fenced == [ONE])
    await node.drained()
    assert node.spans(TWO) == [(1, 1), (2, 2)]
    assert node.shipper.find(ONE) is None


async def test_a_sleeping_object_is_remembered_by_a_number(
    node: Node, bucket: SwitchedBucket
) -> None:
    """Its next commit needs no look at the bucket."""
    node.append(batch(1, ONE))
    await node.drained()
    await until(lambda: node.shipper.shipment(ONE).is_idle)
    node.shipper.rest(ONE)
    assert node.shipper.find(ONE) is None
    assert node.shipper.shipped_txid(ONE) == 1
    before = bucket.usage
    node.append(batch(2, ONE))
    await node.drained()
    assert bucket.usage.lists == before.lists
    assert node.spans(ONE) == [(1, 1), (2, 2)]


async def test_an_object_that_is_behind_does_not_rest(node: Node, bucket: SwitchedBucket) -> None:
    bucket.away = True
    node.append(batch(1, ONE))
    node.shipper.rest(ONE)
    assert node.shipper.find(ONE) is not None
    assert node.shipper.behind() == [ONE]


async def test_a_drain_ends_in_time_and_names_what_is_missing(
    node: Node, bucket: SwitchedBucket
) -> None:
    node.append(batch(1, ONE), batch(1, TWO))
    await node.drained()
    bucket.away = True
    node.append(batch(2, ONE))
    async with asyncio.timeout(5):
        assert await node.shipper.drain(0.05) == [ONE]
        await node.shipper.close()


async def test_the_node_says_how_long_the_bucket_is_away(
    node: Node, bucket: SwitchedBucket
) -> None:
    bucket.away = True
    node.append(batch(1, ONE))
    await until(lambda: node.shipper.shipment(ONE).stalled_since is not None)
    clock = node.shipper.clock
    assert isinstance(clock, ManualClock)
    clock.advance(30)
    assert node.shipper.statistics().stalled_s == 30
    assert isinstance(node.shipper.refusals()[ONE], UnavailableError)
    bucket.away = False
    await node.drained()
    assert node.shipper.statistics().stalled_s == 0
    assert node.shipper.refusals() == {}


async def test_the_allowance_of_files_is_the_node_s_not_the_object_s(
    bucket: SwitchedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosql.replica.pace.REPLICA_FILES_BURST", 4)
    node = Node(bucket, tmp_path, paced=True)
    for txid in (1, 2):
        node.append(batch(txid, ONE), batch(txid, TWO))
        await node.drained()
    node.append(batch(3, ONE))
    node.append(batch(4, ONE))
    await asyncio.sleep(0.05)
    assert node.spans(ONE) == [(1, 1), (2, 2)]
    await node.drained()  # whoever waits need not wait for the second to pass
    assert node.spans(ONE) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    await node.shipper.close()
