"""What may go, and what must not."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import dosql.replica.chain
import dosql.replica.retention
from dosql.errors import DosqlError
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import SNAPSHOT_LEVEL, FileInfo
from dosql.replica.retention import Needed, RetentionSettings, expired, sweep
from dosql.testing.clock import ManualClock
from tests.replica.compaction_play import SCALED, Play, play

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_000 * DAY


def file(level: int, low: int, high: int, age: int) -> FileInfo:
    """One that was stored so long ago."""
    return FileInfo(level, low, high, 1_000, NOW - age)


def going(*files: FileInfo, needed: Needed = None) -> list[tuple[int, int, int]]:
    """Level and range of those that go."""
    gone = expired(files, NOW, RetentionSettings(), needed)
    return sorted((each.level, each.min_txid, each.max_txid) for each in gone)


def test_merged_commits_go_when_what_they_were_merged_into_is_a_day_old() -> None:
    raw = [file(0, n, n, 2 * DAY) for n in range(1, 7)]
    assert going(*raw, file(1, 2, 3, 26 * HOUR), file(1, 4, 5, 24 * HOUR)) == [
        (0, 2, 2),
        (0, 3, 3),
    ]


def test_commits_that_were_never_merged_stay() -> None:
    assert going(*(file(0, n, n, 9 * DAY) for n in range(1, 5))) == []


def test_the_newest_raw_file_stays_whatever_its_age() -> None:
    raw = [file(0, n, n, 90 * DAY) for n in (1, 2, 3)]
    files = [*raw, file(1, 2, 3, 90 * DAY), file(SNAPSHOT_LEVEL, 1, 4, 80 * DAY)]
    assert (0, 3, 3) not in going(*files)
    assert (0, 2, 2) in going(*files)


def test_a_commit_that_a_larger_span_took_in_alone_goes_with_its_neighbours() -> None:
    """It stands between two files of 30 s: without it the second could not be reached."""
    files = [
        file(0, 1, 1, 9 * DAY),
        file(1, 2, 5, 6 * DAY),
        file(0, 6, 6, 6 * DAY),
        file(1, 7, 9, 6 * DAY),
        file(2, 2, 9, 6 * DAY),
        file(0, 10, 10, 1),
    ]
    assert going(*files) == []
    old = [FileInfo(f.level, f.min_txid, f.max_txid, 1, NOW - 8 * DAY) for f in files[:5]]
    assert going(*old, files[5]) == [(0, 6, 6), (1, 2, 5), (1, 7, 9)]


def test_the_newest_snapshot_older_than_the_retention_stays_with_all_behind_it() -> None:
    files = [file(SNAPSHOT_LEVEL, 1, 10 * n, (70 - 10 * n) * DAY) for n in (1, 2, 3, 4, 5)]
    files += [file(3, 10 * n + 1, 10 * n + 10, (61 - 10 * n) * DAY) for n in range(5)]
    files += [file(0, 60, 60, 1)]
    assert going(*files) == [(3, 1, 10), (3, 11, 20), (9, 1, 10), (9, 1, 20)]


def test_the_newest_snapshot_stays_for_ever() -> None:
    files = [file(SNAPSHOT_LEVEL, 1, 7, 900 * DAY), file(0, 7, 7, 900 * DAY)]
    assert going(*files) == []


def test_a_restore_that_began_within_the_retention_has_an_hour() -> None:
    young, old = file(SNAPSHOT_LEVEL, 1, 20, 30 * DAY + HOUR // 2), file(3, 2, 10, 40 * DAY)
    assert going(file(SNAPSHOT_LEVEL, 1, 10, 50 * DAY), old, young, file(0, 21, 21, 1)) == []


def test_snapshots_go_last() -> None:
    files = [file(SNAPSHOT_LEVEL, 1, n, (100 - n) * DAY) for n in (10, 20, 30)]
    files += [file(0, n, n, (100 - n) * DAY) for n in range(1, 30)]
    files += [file(0, 31, 31, 0)]
    order = [each.level for each in expired(files, NOW, RetentionSettings())]
    assert order == sorted(order) and order.count(SNAPSHOT_LEVEL) == 2


def test_exactly_what_a_branch_needs_is_held_back() -> None:
    raw = [file(0, n, n, 20 * DAY) for n in range(1, 11)]
    files = [*raw, file(1, 2, 5, 20 * DAY), file(1, 6, 9, 20 * DAY)]
    assert going(*files, needed=[7]) == [(0, n, n) for n in (2, 3, 4, 5, 8, 9)]
    assert going(*files, needed=[]) == [(0, n, n) for n in range(2, 10)]


def test_everything_from_a_txid_on_is_held_back_for_those_who_know_only_the_lowest() -> None:
    raw = [file(0, n, n, 20 * DAY) for n in range(1, 11)]
    files = [*raw, file(1, 2, 5, 20 * DAY), file(1, 6, 9, 20 * DAY)]
    assert going(*files, needed=7) == [(0, n, n) for n in (2, 3, 4, 5)]


def test_a_branch_of_an_old_snapshot_keeps_it() -> None:
    files = [file(SNAPSHOT_LEVEL, 1, 10 * n, (90 - 10 * n) * DAY) for n in range(1, 6)]
    files.append(file(0, 51, 51, 0))
    assert (9, 1, 20) in going(*files)
    assert (9, 1, 20) not in going(*files, needed={20})


def test_needs_that_cannot_be_met_any_more_hold_back_what_is_behind_them() -> None:
    files = [file(SNAPSHOT_LEVEL, 1, 10, 90 * DAY), file(SNAPSHOT_LEVEL, 1, 20, 80 * DAY)]
    files += [file(3, 2, 9, 90 * DAY), file(0, 21, 21, 0)]
    assert going(*files, needed=[15]) == [(3, 2, 9), (9, 1, 10)]


def test_a_sweep_asks_for_needs_after_it_listed(tmp_path: Path) -> None:
    """Who notes a need first and looks second can then not miss a removal."""
    order: list[str] = []
    bucket = MemoryBucket(fault=lambda operation, key: order.append(operation))
    with_files = Play(tmp_path, bucket, ManualClock(), random.Random(1), False)
    try:
        order.clear()
        sweep(with_files.replica, NOW, RetentionSettings(), lambda: order.append("needs"))  # type: ignore[func-returns-value]
    finally:
        with_files.close()
    assert order == ["list"] * 5 + ["needs"]


@pytest.fixture
def small_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dosql.replica.chain, "SNAPSHOT_AFTER_BYTES_MIN", 200_000)
    monkeypatch.setattr(dosql.replica.chain, "SNAPSHOT_FILE_BYTES", 10_000)


def run(tmp_path: Path, seed: int, branches: bool = False) -> int:
    """Play, and sweep often; how many files went."""
    clock = ManualClock()
    bucket = MemoryBucket(clock=clock)
    each = Play(tmp_path, bucket, clock, random.Random(seed), False)
    written = 0
    try:
        for _ in range(12):
            play(each, 10, fails=())
            each.compact()
            each.sweep()
            if branches and not each.needed:
                each.needed = each.draw.sample(sorted(each.states), 3)
            each.check()
            written = max(written, len(each.states))
            each.clock.advance(5_000)
        each.check(samples=20)
        raw = sum(file.level == 0 for file in each.replica.files())
        return written - raw
    finally:
        each.close()


@pytest.mark.usefixtures("small_floor")
@pytest.mark.parametrize("seed", range(3))
def test_branches_can_be_restored_however_old_they_become(tmp_path: Path, seed: int) -> None:
    assert run(tmp_path, 20 + seed, branches=True) > 10


def deletes_newest(files: Iterable[FileInfo], *rest: Any) -> list[FileInfo]:
    known = list(files)
    newest = max((f for f in known if f.level == 0), key=lambda f: f.max_txid)
    return [*expired(known, *rest), newest]


def ignores_age(
    files: Iterable[FileInfo], now_ms: int, settings: Any, needed: Any
) -> list[FileInfo]:
    return expired(files, now_ms, RetentionSettings(commits_ms=0, history_ms=SCALED.history_ms))


def forgets_branches(
    files: Iterable[FileInfo], now_ms: int, settings: Any, needed: Any
) -> list[FileInfo]:
    return expired(files, now_ms, settings, None)


@pytest.mark.usefixtures("small_floor")
@pytest.mark.parametrize("wrong", [deletes_newest, ignores_age, forgets_branches])
def test_a_wrong_retention_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    monkeypatch.setattr(dosql.replica.retention, "expired", wrong)
    with pytest.raises((AssertionError, DosqlError)):
        run(tmp_path, 20, branches=True)
