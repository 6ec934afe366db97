"""The commit log: what was acknowledged is found again, whatever happened to the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dosql.clock import SystemRandomness
from dosql.errors import CorruptError
from dosql.log.disk import RealDisk
from dosql.log.node_log import NodeLog
from dosql.log.records import Batch, DamagedBatch, Drop, Found, ObjectKey, Record
from dosql.pages import PageSet

PAGE = 512
SEGMENT = 16 * 1024


def key(number: int) -> ObjectKey:
    return ObjectKey(number.to_bytes(32, "big"), 1)


def batch(number: int, txid: int, *, pages: int = 1) -> Batch:
    fill = bytes([txid % 251])
    return Batch(
        key(number),
        txid,
        1_000 + txid,
        PageSet(PAGE, pages, {n: fill * PAGE for n in range(1, pages + 1)}),
    )


def open_log(directory: Path) -> NodeLog:
    log = NodeLog(directory, disk=RealDisk(), randomness=SystemRandomness(), segment_bytes=SEGMENT)
    return log


def written(directory: Path, groups: Sequence[Sequence[Record]]) -> None:
    """A log as a killed process leaves it."""
    log = open_log(directory)
    for group in groups:
        log.append(group)
    log.close()


def replayed(directory: Path) -> list[Found]:
    log = open_log(directory)
    found = list(log.replay())
    log.close()
    return found


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def test_everything_appended_is_replayed_in_order(tmp_path: Path) -> None:
    groups = [[batch(1, 1), batch(2, 1)], [batch(1, 2), Drop(key(2))], [batch(1, 3, pages=5)]]
    written(tmp_path, groups)
    assert replayed(tmp_path) == [record for group in groups for record in group]


def test_a_replay_twice_gives_the_same(tmp_path: Path) -> None:
    written(tmp_path, [[batch(1, 1)], [batch(1, 2)]])
    assert replayed(tmp_path) == replayed(tmp_path)


def test_a_log_spans_segments_and_appends_go_on_after_a_replay(tmp_path: Path) -> None:
    records = [batch(1, txid, pages=4) for txid in range(1, 40)]
    written(tmp_path, [[record] for record in records])
    log = open_log(tmp_path)
    assert list(log.replay()) == records
    more = [batch(1, txid, pages=4) for txid in range(40, 60)]
    for record in more:
        log.append([record])
    log.close()
    assert len(segments(tmp_path)) > 3
    assert replayed(tmp_path) == [*records, *more]


def test_a_batch_larger_than_a_segment_is_kept_whole(tmp_path: Path) -> None:
    large = batch(1, 2, pages=3 * SEGMENT // PAGE)
    written(tmp_path, [[batch(1, 1)], [large], [batch(1, 3)]])
    assert replayed(tmp_path) == [batch(1, 1), large, batch(1, 3)]


@pytest.mark.parametrize("lost", [1, 100, 511, 512, 700])
def test_a_torn_last_group_was_never_acknowledged_and_is_dropped(tmp_path: Path, lost: int) -> None:
    written(tmp_path, [[batch(1, 1)], [batch(1, 2, pages=3)]])
    path = segments(tmp_path)[0]
    end = path.stat().st_size
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: len(content) - lost].ljust(end, b"\0"))
    assert replayed(tmp_path) == [batch(1, 1)]
    assert replayed(tmp_path) == [batch(1, 1)]


def test_a_flipped_page_condemns_its_object_and_no_other(tmp_path: Path) -> None:
    written(tmp_path, [[batch(1, 1), batch(2, 1)], [batch(2, 2)]])
    path = segments(tmp_path)[0]
    flip(path, path.read_bytes().index(bytes([1]) * PAGE) + 5)
    assert replayed(tmp_path) == [DamagedBatch(key(1), 1), batch(2, 1), batch(2, 2)]


def test_a_flipped_header_with_commits_behind_it_refuses_the_start(tmp_path: Path) -> None:
    written(tmp_path, [[batch(1, 1)], [batch(2, 1)]])
    flip(segments(tmp_path)[0], 3)
    with pytest.raises(CorruptError) as refusal:
        replayed(tmp_path)
    assert refusal.value.code == "log_damaged"


@pytest.mark.parametrize("offset", [*range(0, 130), 200, 400, 635])
def test_every_flipped_byte_of_an_acknowledged_group_is_noticed(
    tmp_path: Path, offset: int
) -> None:
    written(tmp_path, [[batch(1, 1)], [batch(2, 1)]])
    path = segments(tmp_path)[0]
    content = path.read_bytes()
    assert content.index(b"DOSQLOG1", 8) == 1024
    assert content[635] != 0, "the group's last byte before its padding"
    flip(path, offset)
    try:
        found = replayed(tmp_path)
    except CorruptError:
        return
    assert found == [DamagedBatch(key(1), 1), batch(2, 1)]


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_segment_refuses_the_start(tmp_path: Path, which: int) -> None:
    written(tmp_path, [[batch(1, txid, pages=20)] for txid in range(1, 10)])
    segments(tmp_path)[which].unlink()
    with pytest.raises(CorruptError, match="is missing"):
        replayed(tmp_path)


def test_a_missing_or_flipped_manifest_refuses_the_start(tmp_path: Path) -> None:
    written(tmp_path, [[batch(1, 1)]])
    manifest = tmp_path / "manifest"
    whole = manifest.read_bytes()
    flip(manifest, len(whole) - 4)
    with pytest.raises(CorruptError, match="manifest"):
        replayed(tmp_path)
    manifest.unlink()
    with pytest.raises(CorruptError, match="manifest"):
        replayed(tmp_path)


def test_the_log_is_cut_only_behind_every_object_it_covers(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([batch(1, 1)])
    for txid in range(1, 10):
        log.append([batch(2, txid, pages=20)])
    before = log.size_bytes
    assert key(1) in log.oldest_keys()
    log.checkpointed(key(2), 9, log.position())
    log.cut()
    assert log.size_bytes == before, "object 1 still needs the oldest segment"
    log.checkpointed(key(1), 1, log.position())
    log.cut()
    assert log.size_bytes < before
    log.append([batch(1, 2)])
    log.close()
    assert batch(1, 2) in replayed(tmp_path)


def test_a_batch_after_the_checkpoint_keeps_its_segment(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.append([batch(1, 1)])
    position = log.position()
    log.append([batch(1, 2)])
    for txid in range(1, 10):
        log.append([batch(2, txid, pages=20)])
    log.checkpointed(key(1), 1, position)
    log.checkpointed(key(2), 9, log.position())
    log.cut()
    assert log.batches(key(1), 1) == [batch(1, 2)]
    log.close()
    assert batch(1, 2) in replayed(tmp_path)


def test_what_an_old_use_of_a_file_left_in_it_is_not_replayed(tmp_path: Path) -> None:
    """Cut segments are used again; their old groups lie behind the new ones."""
    log = open_log(tmp_path)
    log.prepare_spare()
    for round in range(6):
        for txid in range(1, 12):
            log.append([batch(round, txid, pages=8)])
        for number in range(round + 1):
            log.checkpointed(key(number), 99, log.position())
        log.cut()
    log.append([batch(77, 1)])
    log.close()
    found = replayed(tmp_path)
    assert found[-1] == batch(77, 1)
    txids = [record.txid for record in found[:-1] if isinstance(record, Batch)]
    assert txids == sorted(txids), "only the newest round, in order"
