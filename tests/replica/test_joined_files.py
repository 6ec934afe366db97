"""Several batches as one file, and whole images: fenced as single batches are.

What they bring is under the name of the first batch; a file without pages closes the gap behind
it. So whoever knows the newest file knows the one name that may come next.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from dosql.errors import NotFoundError, UnavailableError
from dosql.pages import PageSet
from dosql.replica.bucket import Bucket
from dosql.replica.history import state_at, state_of, write_state
from dosql.replica.image_file import make_raw_image
from dosql.replica.layout import Layout
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import RAW_LEVEL
from dosql.replica.replica import Fenced, Head, Replica
from dosql.testing.clock import ManualClock
from tests.replica.litestream import litestream
from tests.replica.shipping import OURS, THEIRS, Alone, batch, page
from tests.support.buckets import WrappedBucket


class Hooked(WrappedBucket):
    """Something happens in front of a write."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self.before_put: Callable[[str], None] = lambda key: None

    def put(self, key, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.before_put(key)
        return self.inner.put(key, *args, **kwargs)


@pytest.fixture
def bucket() -> Hooked:
    return Hooked(MemoryBucket())


@pytest.fixture
async def paced(
    bucket: Hooked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Alone]:
    """Joins from three waiting batches on."""
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_COALESCE_FROM", 3)
    alone = Alone(bucket, ManualClock(), tmp_path, paced=True)
    yield alone
    await alone.close()


def content(replica: Replica, txid: int | None = None) -> bytes:
    """The restored database."""
    out = io.BytesIO()
    replica.write_image(out, txid)
    return out.getvalue()


def state(txid: int) -> bytes:
    """What `content` is after a batch."""
    return page(txid) + page(1)


def newest(replica: Replica) -> Head:
    head = replica.head()
    assert head is not None
    return head


def writers(replica: Replica) -> list[tuple[int, int, int]]:
    """First and last TXID, and writer, of each raw file."""
    files = replica.listing(RAW_LEVEL)
    return [(each.min_txid, each.max_txid, replica.header(each).node_id) for each in files]


async def joined(alone: Alone) -> Replica:
    """The first batch alone, then 2 to 6 in one file; the bucket has both."""
    alone.add(1)
    await alone.shipment.reached(1)
    alone.add(2, 3, 4, 5, 6)
    await alone.shipment.reached(6)
    return alone.shipment.replica


# --- what lies in the bucket ------------------------------------------------------------------


async def test_joined_batches_are_one_file_and_one_that_closes_the_gap(paced: Alone) -> None:
    replica = await joined(paced)
    assert writers(replica) == [(1, 1, OURS), (2, 2, OURS), (3, 6, OURS)]
    assert content(replica) == content(replica, 6) == state(6)
    assert len(paced.sizes) == 3


async def test_a_number_inside_a_joined_file_is_the_state_before_it(
    paced: Alone, tmp_path: Path
) -> None:
    """Its own name is one of these: what lies there is a later state."""
    replica = await joined(paced)
    assert [state_of(replica, txid).txid for txid in range(1, 7)] == [1, 1, 1, 1, 1, 6]
    assert [state_at(replica, at_ms).txid for at_ms in (1_000, 2_000, 5_999, 6_000)] == [1, 1, 1, 6]
    with pytest.raises(NotFoundError) as raised:
        write_state(replica, 2, tmp_path / "state")
    assert raised.value.code == "restore_point_not_found"
    assert not (tmp_path / "state").exists()


async def test_the_first_batches_of_an_object_can_be_joined(paced: Alone) -> None:
    paced.add(1, 2, 3, 4)
    await paced.shipment.reached(4)
    replica = paced.shipment.replica
    assert writers(replica) == [(1, 1, OURS), (2, 4, OURS)]
    assert content(replica) == state(4)
    with pytest.raises(NotFoundError):
        state_of(replica, 3)


# --- two writers ------------------------------------------------------------------------------


async def fenced(alone: Alone, txid: int) -> None:
    """Wait for a batch that another writer's file keeps from the bucket."""
    with pytest.raises(UnavailableError) as raised:
        await alone.shipment.reached(txid)
    assert raised.value.code == "object_moved"
    assert alone.fences == 1


async def test_joined_batches_meet_a_fence(paced: Alone) -> None:
    """Under a name of their own they would lie beside it."""
    paced.add(1)
    await paced.shipment.reached(1)
    replica = paced.shipment.replica
    replica.fence(newest(replica), timestamp_ms=1_000, epoch=THEIRS)
    paced.add(2, 3, 4, 5, 6)
    await fenced(paced, 6)
    assert writers(replica) == [(1, 1, OURS), (2, 2, THEIRS)]
    assert content(replica) == state(1)


async def test_an_image_meets_a_fence(paced: Alone) -> None:
    paced.add(1)
    await paced.shipment.reached(1)
    replica = paced.shipment.replica
    replica.fence(newest(replica), timestamp_ms=1_000, epoch=THEIRS)
    paced.add(4)  # 2 and 3 are not in the spool
    await fenced(paced, 4)
    assert writers(replica) == [(1, 1, OURS), (2, 2, THEIRS)]


async def test_a_first_image_meets_the_first_batch_of_another(paced: Alone) -> None:
    """An object that both believe to be new."""
    replica = paced.shipment.replica
    paced.shipment.shipped_txid = 0
    replica.put(batch(1).pages, 1, 1, timestamp_ms=1, epoch=THEIRS)
    paced.newest = 4
    paced.shipment.start(4)
    await fenced(paced, 4)
    assert writers(replica) == [(1, 1, THEIRS)]


@pytest.mark.parametrize("image", [False, True])
async def test_a_takeover_between_the_two_files_keeps_what_the_first_brought(
    image: bool, paced: Alone, bucket: Hooked
) -> None:
    """The other closes the gap itself: the name that it takes is the one that is next."""
    other = Replica(bucket.inner, paced.shipment.replica.layout)
    found: list[tuple[int, int, bytes]] = []

    def take_over(key: str) -> None:
        head = other.head()
        if head is not None and head.is_open:
            found.append((head.txid, head.reach, content(other)))
            other.fence(head, timestamp_ms=7_000, epoch=THEIRS)
            other.put(batch(7).pages, 7, 7, timestamp_ms=7_000, epoch=THEIRS)

    paced.add(1)
    await paced.shipment.reached(1)
    bucket.before_put = take_over
    paced.add(*([6] if image else [2, 3, 4, 5, 6]))
    await fenced(paced, 6)
    assert found == [(2, 6, state(6))]
    assert writers(other) == [(1, 1, OURS), (2, 2, OURS), (3, 6, THEIRS), (7, 7, THEIRS)]
    assert content(other) == state(7)
    assert content(other, 6) == state(6)


async def test_a_gap_that_an_earlier_run_left_is_closed_before_anything_is_sent(
    paced: Alone,
) -> None:
    replica = paced.shipment.replica
    replica.put(batch(1).pages, 1, 1, timestamp_ms=1_000, epoch=OURS - 1)
    replica.put(batch(5).pages, 2, 5, timestamp_ms=5_000, epoch=OURS - 1)
    replica.bucket.delete([replica.layout.key(RAW_LEVEL, 3, 5)])  # it was killed before this one
    assert newest(replica).is_open
    paced.add(4, 5, 6)
    await paced.shipment.reached(6)
    assert writers(replica)[2:] == [(3, 5, OURS), (6, 6, OURS)]
    assert content(replica) == state(6)


async def test_an_older_state_of_the_directory_does_not_close_a_gap(paced: Alone) -> None:
    """The newest file reaches further than what it has."""
    replica = paced.shipment.replica
    replica.put(batch(1).pages, 1, 1, timestamp_ms=1_000, epoch=OURS - 1)
    replica.put(batch(5).pages, 2, 5, timestamp_ms=5_000, epoch=OURS - 1)
    replica.bucket.delete([replica.layout.key(RAW_LEVEL, 3, 5)])
    paced.add(2, 3)
    await fenced(paced, 3)
    assert writers(replica) == [(1, 1, OURS - 1), (2, 2, OURS - 1)]


# --- every moment -----------------------------------------------------------------------------

SENT = [(1, 1), (2, 5), (6, 6), (7, 9), (10, 10)]
"""First and last batch of what one writer sends: seven writes, for the joined ones are two."""
WRITES = 7


def mine(writer: int, txid: int) -> PageSet:
    """A state that says whose it is."""
    return PageSet(512, 1, {1: (writer.to_bytes(8, "big") + txid.to_bytes(8, "big")) * 32})


@pytest.mark.parametrize("moment", range(WRITES + 1))
@pytest.mark.parametrize("again", [False, True])
def test_a_takeover_in_front_of_any_write_leaves_one_history(moment: int, again: bool) -> None:
    """The other one takes over, and writes joined files of its own; the first goes on until it
    is told. ``again``: then a third takes over in front of the closing file of the second."""
    bucket = Hooked(MemoryBucket())
    layout = Layout("objects/x")
    plain, first = Replica(bucket.inner, layout), Replica(bucket, layout)
    count = 0
    told: list[int] = []

    def take_over(epoch: int) -> int:
        head = plain.head()
        if head is None:
            return 0
        return plain.fence(head, timestamp_ms=head.timestamp_ms, epoch=epoch).txid

    def send(replica: Replica, epoch: int, low: int, high: int) -> None:
        replica.put(mine(epoch, high), low, high, timestamp_ms=high, epoch=epoch)

    def before(key: str) -> None:
        nonlocal count
        count += 1
        if count == moment + 1:
            bucket.before_put = lambda key: None
            txid = take_over(THEIRS)
            send(plain, THEIRS, txid + 1, txid + 4)
            if again:
                plain.bucket.delete([layout.key(RAW_LEVEL, txid + 2, txid + 4)])  # not yet there
                txid = take_over(THEIRS + (1 << 24)) - 4
            told.append(txid + 4)

    bucket.before_put = before
    sent = 0
    try:
        for low, high in SENT:
            send(first, OURS, low, high)
            sent = high
    except Fenced:
        assert told
    if not told:
        before("at the end") if count == moment else None
    files = sorted((each.min_txid, each.max_txid) for each in plain.listing(RAW_LEVEL))
    assert [low for low, _ in files] == [1, *(high + 1 for _, high in files[:-1])]
    assert files[-1][1] == (told[0] if told else sent)
    assert content(plain) == mine(THEIRS if told else OURS, files[-1][1]).pages[1]


# --- for a stranger's tool --------------------------------------------------------------------


def states(path: Path, count: int) -> list[PageSet]:
    """A SQLite database that grows, whole, after each of its commits."""
    db = apsw.Connection(str(path))
    db.pragma("page_size", 512)
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    found: list[PageSet] = []
    for _ in range(count):
        db.execute("INSERT INTO t(v) VALUES (randomblob(700))")
        image = path.read_bytes()
        parts = [image[at : at + 512] for at in range(0, len(image), 512)]
        found.append(PageSet(512, len(parts), dict(enumerate(parts, 1))))
    db.close()
    return found


@pytest.mark.parametrize("is_closed", [True, False])
def test_litestream_restores_joined_files_and_images(is_closed: bool, tmp_path: Path) -> None:
    """Also where the server died in front of the file that closes the gap."""
    kept = states(tmp_path / "source.db", 9)
    whole = [b"".join(each.pages.values()) for each in kept]
    bucket = LocalBucket(tmp_path / "bucket")
    replica = Replica(bucket, Layout("objects/x", directory=True))
    replica.put(kept[0], 1, 1, timestamp_ms=1_000, epoch=OURS)
    replica.put(kept[3], 2, 4, timestamp_ms=4_000, epoch=OURS)
    replica.put(kept[4], 5, 5, timestamp_ms=5_000, epoch=OURS)
    (tmp_path / "now.db").write_bytes(whole[8])
    image = make_raw_image(
        tmp_path / "now.db",
        tmp_path / "now.ltx",
        page_size=512,
        min_txid=6,
        txid=9,
        timestamp_ms=9_000,
        epoch=OURS,
    )
    assert image is not None
    image.put(replica)
    if not is_closed:
        bucket.delete([replica.layout.key(RAW_LEVEL, 7, 9)])
    out = tmp_path / "restored.db"
    wanted: list[tuple[list[str], bytes]] = [([], whole[8])]
    wanted += [(["-txid", f"{txid:016x}"], whole[txid - 1]) for txid in (1, 4, 5)]
    for target, expected in wanted:
        out.unlink(missing_ok=True)
        url = f"file://{tmp_path}/bucket/objects/x"
        litestream("restore", *target, "-integrity-check", "full", "-o", str(out), url)
        assert out.read_bytes() == expected
    assert content(replica) == whole[8]
