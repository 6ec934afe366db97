"""Whatever is merged, removed, interrupted and repeated: what can be restored stays the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import dosql.replica.chain
import dosql.replica.compactor
from dosql.clock import SystemClock, iso_from_ms
from dosql.errors import DosqlError
from dosql.replica.bucket import Bucket
from dosql.replica.chain import MERGED_LEVELS, look
from dosql.replica.compaction import Merged, merge, merged_header, newest
from dosql.replica.compactor import Compactor, compact
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.ltx import Decoder, Encoder
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import SNAPSHOT_LEVEL
from dosql.testing.clock import ManualClock
from tests.replica.compaction_play import GRACE_MS, Play, play
from tests.replica.litestream import litestream
from tests.support.buckets import (
    moto_url,
    s3_bucket,
    s3_credentials,
)
from tests.support.faulty_bucket import FaultRates, FaultyBucket
from tests.support.minio import MinioServer

__all__ = ["moto_url", "s3_credentials"]
"""Fixtures."""
STEPS = 120


@pytest.fixture(autouse=True)
def small_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots after a few dozen files."""
    monkeypatch.setattr(dosql.replica.chain, "SNAPSHOT_AFTER_BYTES_MIN", 200_000)
    monkeypatch.setattr(dosql.replica.chain, "SNAPSHOT_FILE_BYTES", 10_000)


@contextmanager
def playing(
    tmp: Path,
    seed: int,
    make: Callable[[ManualClock], Bucket] | None = None,
    start_ms: int | None = None,
) -> Iterator[Play]:
    clock = ManualClock() if start_ms is None else ManualClock(start_ms)
    bucket = make(clock) if make else MemoryBucket(clock=clock)
    each = Play(tmp, bucket, clock, random.Random(seed), isinstance(bucket, LocalBucket))
    try:
        yield each
    finally:
        each.close()


@pytest.mark.parametrize("seed", range(4))
def test_every_promised_state_can_be_restored_at_any_time(tmp_path: Path, seed: int) -> None:
    with playing(tmp_path, seed) as each:
        play(each, STEPS, fails=())
        levels = {file.level for file in each.replica.files()}
        assert levels >= {0, 1, 2, SNAPSHOT_LEVEL}


@pytest.mark.parametrize("seed", range(4))
def test_so_it_is_when_requests_fail_before_or_after_their_effect(
    tmp_path: Path, seed: int
) -> None:
    """A fault ends the step where it is, as a crash does."""
    rates = FaultRates(before=0.07, after=0.07, phantom=0.07)

    def make(clock: ManualClock) -> Bucket:
        return FaultyBucket(MemoryBucket(clock=clock), random.Random(seed), rates)

    with playing(tmp_path, seed, make) as each:
        check, bucket = each.check, each.replica.bucket
        assert isinstance(bucket, FaultyBucket)

        def checked(samples: int = 3) -> None:
            bucket.rates = FaultRates()
            check(samples)
            bucket.rates = rates

        each.check = checked  # type: ignore[method-assign]
        play(each, STEPS)
        faults = [what for _, key, what in bucket.faults if "/0000/" not in key]
    assert len(faults) > 2


def test_two_compactors_of_one_object_do_no_harm(tmp_path: Path) -> None:
    """The second one believes what was true some time ago."""
    with playing(tmp_path, 99) as each:
        for _ in range(12):
            for _ in range(15):
                each.write()
            other = look(each.replica)
            for _ in range(5):
                each.write()
            until = each.clock.now_ms() - GRACE_MS
            each.compact()
            for level in MERGED_LEVELS:
                Compactor(tmp_path).compact(each.replica, other, level, until)
            Compactor(tmp_path).snapshot(each.replica, other, until)
            each.check()
            each.sweep()
            each.check()


def test_compacting_what_is_compacted_writes_nothing(tmp_path: Path) -> None:
    with playing(tmp_path, 5) as each:
        for _ in range(40):
            each.write()
        each.compact()
        until = each.clock.now_ms() - GRACE_MS
        before = each.replica.bucket.usage
        assert [compact(each.replica, n, until, scratch=tmp_path) for n in MERGED_LEVELS] == [0] * 3
        assert (each.replica.bucket.usage - before).puts == 0


@pytest.mark.parametrize("seed", range(3))
def test_litestream_restores_what_was_merged_and_swept(tmp_path: Path, seed: int) -> None:
    """The latest state, and one by its time."""

    def make(clock: ManualClock) -> Bucket:
        return LocalBucket(tmp_path / "bucket")

    with playing(tmp_path, 50 + seed, make) as each:
        play(each, 100, fails=())
        files = each.files()
        assert {file.level for file in files} >= {0, 1, SNAPSHOT_LEVEL}
        url = f"file://{tmp_path / 'bucket' / each.replica.layout.prefix}"
        last = max(each.states)
        out = tmp_path / "theirs.db"
        litestream("restore", "-integrity-check", "full", "-o", str(out), url)
        assert out.read_bytes() == each.states[last].image
        snapshot = max(f.max_txid for f in files if f.level == SNAPSHOT_LEVEL)
        ends = sorted({f.max_txid for f in files if snapshot <= f.max_txid < last})
        state = each.states[each.draw.choice(ends)]
        out.unlink()
        when = iso_from_ms(state.at_ms + 1)
        litestream("restore", "-timestamp", when, "-o", str(out), url)
        assert out.read_bytes() == state.image


@pytest.mark.parametrize("store", ["moto", "minio"])
def test_it_is_the_same_in_a_store_that_speaks_s3(
    tmp_path: Path, store: str, moto_url: str, minio: MinioServer
) -> None:
    """Whose times are its own: those of the commits are looked up."""
    now_ms = SystemClock().now_ms()
    url = moto_url if store == "moto" else minio.url
    with playing(tmp_path, 4, lambda clock: s3_bucket(url), now_ms) as each:
        for _ in range(12):
            for _ in range(3):
                each.write()
            each.compact()
            if each.draw.random() < 0.3:
                each.crash()
        each.check(samples=1)
        assert {file.level for file in each.replica.files()} >= {0, 1}
        each.replica.bucket.close()


def skipping(files: Sequence[Decoder], write: Callable[[bytes], object]) -> Merged:
    """A merge that forgets what the second file brought."""
    header = merged_header([file.header for file in files])
    if len(files) < 3 or header.is_snapshot:
        return merge(files, write)
    encoder = Encoder(header, write)
    for pgno, page in newest([files[0], *files[2:]]):
        if pgno <= header.commit:
            encoder.page(pgno, page)
    return Merged(header, encoder.size, encoder.finish(), 0)


def test_a_merge_that_loses_a_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dosql.replica.compactor, "merge", skipping)
    with playing(tmp_path, 1) as each, pytest.raises((AssertionError, DosqlError)):
        play(each, STEPS, fails=())


def test_a_restore_reads_no_more_than_twice_the_database(tmp_path: Path) -> None:
    """Beside the floor, and what is too young to be merged. The database grows, is rewritten, and
    shrinks."""
    with playing(tmp_path, 7) as each:
        db = each.source.db
        db.execute("CREATE TABLE growing (v)")
        sizes: list[int] = []
        for number in range(150):
            each.clock.advance(20)
            if number % 50 == 49:
                db.execute("DELETE FROM growing")
                db.execute("VACUUM")
            else:
                db.execute("INSERT INTO growing VALUES (?)", (each.draw.randbytes(20_000),))
            each.source.ship()
            each.compact()
            young = sum(f.size for f in each.chain.files[each.chain.settled(each.clock.now_ms()) :])
            assert each.chain.base is not None
            read = each.chain.base.size + sum(file.size for file in each.chain.files)
            sizes.append(db.pragma("page_count") * db.pragma("page_size"))
            size = max(sizes[-18:])  # that it shrank is known when five minutes are merged
            assert read <= 2 * (size + 200_000) + young + 40_000, number
