"""A flipped byte anywhere is found, and made good where another file holds the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import dosql.replica.chain
from dosql.errors import NotFoundError
from dosql.replica.layout import Layout
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import SNAPSHOT_LEVEL, FileInfo, restore_plan
from dosql.replica.replica import Replica
from dosql.replica.verification import verify
from dosql.testing.clock import ManualClock
from tests.replica.compaction_play import Play


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """Files of every level but the third."""
    monkeypatch.setattr(dosql.replica.chain, "SNAPSHOT_AFTER_BYTES_MIN", 400_000)
    clock = ManualClock()
    each = Play(tmp_path, MemoryBucket(clock=clock), clock, random.Random(11), False)
    for _ in range(200):
        each.write()
        each.write()
        each.compact()
        if {file.level for file in each.replica.files()} >= {0, 1, 2, SNAPSHOT_LEVEL}:
            break
    else:
        raise AssertionError("no snapshot")
    each.write()
    yield each
    each.close()


def flip(replica: Replica, file: FileInfo, at: int) -> None:
    data = bytearray(replica.bucket.get(replica.key(file)))
    data[at % len(data)] ^= 0x10
    replica.bucket.put(replica.key(file), bytes(data))
    if replica.recent is not None:
        replica.recent.forget(replica.key(file))


def test_a_sound_replica_is_restored_and_checked(played: Play, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = verify(played.replica, tmp_path, on_progress=lambda *step: steps.append(step))
    assert report.is_sound and report.damaged == []
    assert report.txid == max(played.states)
    assert report.database_bytes == len(played.states[report.txid].image)
    assert report.files == len(restore_plan(played.replica.files())) == len(steps)
    assert steps[-1] == (report.bytes, report.bytes)
    everything = verify(played.replica, tmp_path, everything=True)
    assert everything.files == len(played.replica.files())


def test_there_must_be_a_replica(tmp_path: Path) -> None:
    replica = Replica(MemoryBucket(), Layout("objects/none"))
    with pytest.raises(NotFoundError):
        verify(replica, tmp_path)


def test_a_flipped_byte_is_found_in_every_file_and_named(played: Play, tmp_path: Path) -> None:
    files = played.replica.files()
    for file in played.draw.sample(files, 12):
        at = played.draw.randrange(1 << 20)
        flip(played.replica, file, at)
        report = verify(played.replica, tmp_path, everything=True)
        assert [each.file for each in report.damaged] == [file]
        assert not report.is_sound
        flip(played.replica, file, at)


def test_every_merged_file_and_snapshot_is_made_anew_while_its_inputs_are_there(
    played: Play, tmp_path: Path
) -> None:
    """To the byte."""
    merged = [file for file in played.replica.files() if file.level > 0]
    assert len(merged) > 5
    before = {file: played.replica.bucket.get(played.replica.key(file)) for file in merged}
    for file in merged:
        flip(played.replica, file, played.draw.randrange(1 << 20))
        report = verify(played.replica, tmp_path, everything=True, repair=True)
        assert [(each.file, each.repaired) for each in report.damaged] == [(file, True)]
        assert report.is_sound
        assert played.replica.bucket.get(played.replica.key(file)) == before[file]


def test_what_nothing_else_holds_is_reported(played: Play, tmp_path: Path) -> None:
    last = restore_plan(played.replica.files())[-1]
    assert last.level == 0
    flip(played.replica, last, 200)
    report = verify(played.replica, tmp_path, repair=True)
    assert [(each.file, each.repaired) for each in report.damaged] == [(last, False)]
    assert report.failure == f"TXID {last.max_txid} cannot be restored, only {last.max_txid - 1}."


def test_a_missing_file_is_reported(played: Play, tmp_path: Path) -> None:
    plan = restore_plan(played.replica.files())
    for file in played.replica.files():
        if file.min_txid <= plan[-2].max_txid <= file.max_txid and file.level != SNAPSHOT_LEVEL:
            played.replica.bucket.delete([played.replica.key(file)])
    report = verify(played.replica, tmp_path)
    assert report.failure is not None and "gap" in report.failure
