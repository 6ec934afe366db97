"""Names of files, and which of them restore a moment."""

from __future__ import annotations

import random

import pytest

from dosql.errors import CorruptError, DosqlError, NotFoundError
from dosql.replica.plan import (
    FileInfo,
    file_name,
    key,
    parse_key,
    parse_name,
    restore_plan,
    restore_plans,
)


def info(level: int, low: int, high: int, timestamp_ms: int | None = None) -> FileInfo:
    """A stored file; its time is its last TXID in seconds."""
    return FileInfo(level, low, high, 100, high * 1000 if timestamp_ms is None else timestamp_ms)


def raw(low: int, high: int) -> list[FileInfo]:
    return [info(0, txid, txid) for txid in range(low, high + 1)]


def spans(plan: list[FileInfo]) -> list[tuple[int, int, int]]:
    return [(file.level, file.min_txid, file.max_txid) for file in plan]


def test_keys_are_those_of_litestream() -> None:
    name = "0000000000000005-00000000000000ff.ltx"
    assert file_name(5, 255) == info(9, 5, 255).name == name
    assert key("t/db1", 9, 5, 255) == info(9, 5, 255).key("t/db1") == f"t/db1/0009/{name}"


@pytest.mark.parametrize("prefix", ["", "t/"])
def test_a_prefix_that_makes_keys_with_empty_parts_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        key(prefix, 0, 1, 1)


def test_names_are_read_back() -> None:
    assert parse_name(file_name(1, 2**64 - 1)) == (1, 2**64 - 1)
    assert parse_key("a/b", key("a/b", 3, 7, 12)) == (3, 7, 12)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0000000000000005-00000000000000FF.ltx",
        "0000000000000005-0000000000000004.ltx",
        "0000000000000000-0000000000000004.ltx",
        "0000000000000001-0000000000000001.ltx.tmp",
        "x0000000000000001-0000000000000001.ltx",
        "0000000000000001-0000000000000001.ltx\n",
        "1-1.ltx",
    ],
)
def test_other_names_are_none_of_ours(name: str) -> None:
    assert parse_name(name) is None
    assert parse_key("p", f"p/0000/{name}") is None


@pytest.mark.parametrize("text", ["p/000a/{}", "p/0/{}", "p/{}", "q/0000/{}", "p/0000/0000/{}"])
def test_other_keys_are_none_of_ours(text: str) -> None:
    assert parse_key("p", text.format(file_name(1, 1))) is None


def test_the_latest_state_starts_from_the_last_snapshot_and_takes_the_longest_steps() -> None:
    files = [info(9, 1, 4), info(9, 1, 10), *raw(1, 30), info(1, 9, 14), info(2, 11, 20)]
    plan = restore_plan(files)
    assert spans(plan) == [(9, 1, 10), (2, 11, 20), *((0, txid, txid) for txid in range(21, 31))]


def test_of_files_that_reach_equally_far_the_longer_then_the_higher_level_is_taken() -> None:
    files = [*raw(1, 1), info(1, 2, 6), info(2, 2, 6), info(1, 1, 3), info(3, 3, 6)]
    assert spans(restore_plan(files)) == [(1, 1, 3), (2, 2, 6)]


def test_without_a_snapshot_the_first_file_starts_at_one() -> None:
    assert spans(restore_plan([info(1, 1, 5), *raw(6, 6)])) == [(1, 1, 5), (0, 6, 6)]
    with pytest.raises(CorruptError) as raised:
        restore_plan(raw(2, 6))
    assert raised.value.code == "replica_gap"


def test_a_snapshot_in_the_way_of_an_earlier_state_is_left_out() -> None:
    files = [info(9, 1, 3), info(9, 1, 8), *raw(1, 9)]
    assert spans(restore_plan(files, target_txid=5)) == [(9, 1, 3), (0, 4, 4), (0, 5, 5)]
    assert spans(restore_plan(files, target_txid=3)) == [(9, 1, 3)]


@pytest.mark.parametrize("target", [0, 6, 7, 11, 99])
def test_a_state_that_is_not_kept_alone_is_not_found(target: int) -> None:
    """6 and 7 are inside a merged file; 11 and 99 have not been."""
    files = [*raw(1, 5), info(1, 6, 8), *raw(9, 10)]
    with pytest.raises(NotFoundError) as raised:
        restore_plan(files, target_txid=target)
    assert raised.value.code == "restore_point_not_found"


def test_a_time_is_strictly_after_the_state() -> None:
    files = raw(1, 9)
    assert restore_plan(files, before_ms=5000)[-1].max_txid == 4
    assert restore_plan(files, before_ms=5001)[-1].max_txid == 5, "at 5000"
    assert restore_plan(files, before_ms=10**12)[-1].max_txid == 9
    with pytest.raises(NotFoundError):
        restore_plan(files, before_ms=1000)


def test_a_time_inside_a_merged_file_is_the_state_before_it() -> None:
    files = [*raw(1, 4), info(1, 5, 9), *raw(8, 12)]
    assert restore_plan(files, before_ms=8500)[-1].max_txid == 4
    assert restore_plan(files, before_ms=9001)[-1].max_txid == 9


def test_a_time_that_was_not_looked_up_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="looked up"):
        restore_plan([FileInfo(0, 1, 1, 10)], before_ms=5)
    assert restore_plan([FileInfo(0, 1, 1, 10)])


def test_two_targets_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="one target"):
        restore_plan(raw(1, 2), target_txid=1, before_ms=5)


@pytest.mark.parametrize("target", [{}, {"target_txid": 9}, {"before_ms": 9001}], ids=str)
def test_a_hole_in_front_of_what_is_wanted_is_a_gap(target: dict[str, int]) -> None:
    """Also for a time: an older state than the one asked for would be silently wrong."""
    with pytest.raises(CorruptError, match="from TXID 4 to 5") as raised:
        restore_plan([*raw(1, 3), *raw(6, 9)], **target)
    assert raised.value.code == "replica_gap"


def test_a_hole_behind_what_is_wanted_does_not_matter() -> None:
    files = [*raw(1, 3), *raw(6, 9)]
    assert restore_plan(files, target_txid=3) == restore_plan(files, before_ms=3500) == raw(1, 3)


def test_no_files_hold_no_state() -> None:
    with pytest.raises(NotFoundError):
        restore_plan([])


# --- other ways -----------------------------------------------------------------------------------


def test_the_next_plan_gives_the_same_state_without_the_bad_file() -> None:
    files = [info(9, 1, 4), info(9, 1, 8), info(1, 5, 9), *raw(1, 10)]
    bad: set[FileInfo] = set()
    plans = restore_plans(files, bad)
    assert spans(next(plans)) == [(9, 1, 8), (1, 5, 9), (0, 10, 10)]
    bad.add(info(9, 1, 8))
    assert spans(next(plans)) == [(9, 1, 4), (1, 5, 9), (0, 10, 10)]
    bad.add(info(1, 5, 9))
    assert spans(next(plans)) == [(9, 1, 4), *((0, txid, txid) for txid in range(5, 11))]
    bad.add(info(9, 1, 4))
    assert spans(next(plans)) == [(0, txid, txid) for txid in range(1, 11)]
    bad.add(info(0, 3, 3))
    with pytest.raises(CorruptError) as raised:
        next(plans)
    assert raised.value.code == "replica_gap"


@pytest.mark.parametrize(
    "target", [{}, {"target_txid": 9}, {"before_ms": 9001}, {"before_ms": 10**9}], ids=str
)
def test_an_older_state_is_never_given_in_place_of_one_that_is_bad(target: dict[str, int]) -> None:
    files = raw(1, 9)
    plans = restore_plans(files, bad := {files[-1]}, **target)
    with pytest.raises(CorruptError):
        next(plans)
    assert bad


def test_without_a_new_bad_file_there_is_no_other_plan() -> None:
    plans = restore_plans(raw(1, 3), [])
    assert len(list(plans)) == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_plan_is_found_whenever_there_is_one(seed: int) -> None:
    """Against a search through everything, over random sets of files."""
    draw = random.Random(seed)
    files = set()
    for _ in range(draw.randint(1, 25)):
        level = draw.choice([0, 0, 1, 2, 9])
        low = 1 if level == 9 else draw.randint(1, 12)
        high = low if level == 0 else draw.randint(low, 12)
        files.add(info(level, low, high))
    for target in range(1, 13):
        reachable, grown = {0}, True
        while grown:
            found = {
                file.max_txid
                for file in files
                if file.max_txid <= target
                and any(file.min_txid <= at + 1 and file.max_txid > at for at in reachable)
            }
            grown = not found <= reachable
            reachable |= found
        try:
            plan = restore_plan(files, target_txid=target)
        except DosqlError:
            assert target not in reachable
            continue
        assert target in reachable and plan[-1].max_txid == target
        at = 0
        for file in plan:
            assert file.min_txid <= at + 1 and file.max_txid > at
            at = file.max_txid
