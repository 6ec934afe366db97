"""Merging files: the result brings exactly what the files in a row bring."""

from __future__ import annotations

import io
import itertools
import random

import pytest

from dosql.errors import CorruptError
from dosql.replica.compaction import merge, merged_header
from dosql.replica.image import write_image
from dosql.replica.ltx import Header, LtxFile, decode, encode
from tests.replica.ltx_files import file, header, opened, page


def merged(*files: bytes, legacy: bool = False) -> LtxFile:
    parts: list[bytes] = []
    result = merge(opened(*files), parts.append, legacy=legacy)
    data = b"".join(parts)
    read = decode(data)
    assert (result.header, result.size) == (read.header, len(data))
    assert (result.file_checksum, result.pages) == (read.file_checksum, len(read.pages))
    return read


def test_the_newest_version_of_each_page_wins() -> None:
    read = merged(
        file(5, 5, 9, {1: 51, 2: 52, 9: 59}),
        file(6, 6, 9, {2: 62, 3: 63}),
        file(7, 8, 9, {1: 71, 3: 73, 8: 78}),
    )
    assert read.pages == {1: page(71), 2: page(62), 3: page(73), 8: page(78), 9: page(59)}


def test_pages_behind_the_end_of_the_last_database_are_dropped() -> None:
    read = merged(file(5, 5, 9, {1: 1, 8: 8, 9: 9}), file(6, 6, 7, {1: 2}))
    assert (read.header.commit, read.pages) == (7, {1: page(2)})


def test_the_header_spans_all_and_drops_what_one_file_alone_can_say() -> None:
    first = Header(
        page_size=512,
        commit=4,
        min_txid=3,
        max_txid=4,
        timestamp_ms=100,
        node_id=9,
        wal_offset=32,
        wal_size=500,
        wal_salt1=1,
        wal_salt2=2,
    )
    assert merged_header([first, header(5, 5, 6, timestamp_ms=90)]) == Header(
        page_size=512, commit=6, min_txid=3, max_txid=5, timestamp_ms=90
    )


def test_files_may_overlap_as_long_as_each_ends_later() -> None:
    """As Litestream's rule: a file that starts earlier holds pages that are at least as new."""
    read = merged(file(1, 5, 2, {1: 1, 2: 2}), file(3, 7, 2, {2: 7}))
    assert (read.header.min_txid, read.header.max_txid) == (1, 7)
    assert read.pages == {1: page(1), 2: page(7)}


@pytest.mark.parametrize(
    "spans",
    [[(2, 3), (5, 6)], [(4, 4), (2, 3)], [(2, 5), (3, 5)], [(2, 5), (3, 4)], [(2, 2), (2, 2)]],
    ids=str,
)
def test_gaps_and_files_that_bring_nothing_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(CorruptError) as raised:
        merged(*(file(low, high, 3, {1: 1}) for low, high in spans))
    assert raised.value.code == "replica_gap"


def test_two_page_sizes_are_refused() -> None:
    other = encode(header(3, 3, 1, page_size=1024), {1: bytes(1024)})
    with pytest.raises(CorruptError, match="512 and of 1024"):
        merged(file(2, 2, 1, {1: 1}), other)


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="nothing"):
        merged()


@pytest.mark.parametrize(("commit", "missing"), [(4, 3), (3, 3)], ids=["inside", "at the end"])
def test_a_merge_from_the_first_transaction_on_holds_every_page(commit: int, missing: int) -> None:
    """A hole between files that are sound each: only the writer can have left it."""
    with pytest.raises(CorruptError, match=f"page {missing} ") as raised:
        merged(file(1, 1, 2, {1: 1, 2: 2}), file(2, 2, commit, {4: 4} if commit == 4 else {1: 1}))
    assert raised.value.code == "replica_corrupt"


@pytest.mark.parametrize("at", range(3))
def test_a_damaged_input_is_noticed_even_when_none_of_its_pages_are_used(at: int) -> None:
    files = [
        file(1, 1, 2, {1: 1, 2: 2}),
        file(2, 2, 9, dict.fromkeys(range(1, 10), 3)),
        file(3, 3, 2, {1: 1, 2: 2}),
    ]
    files[at] = files[at][:-1] + bytes([files[at][-1] ^ 1])
    with pytest.raises(CorruptError, match="checksum"):
        merged(*files)


def test_old_and_new_encodings_mix() -> None:
    old = encode(header(1, 1, 2), {1: page(1), 2: page(2)}, legacy=True)
    assert merged(old, file(2, 2, 2, {2: 3}), legacy=True).pages == {1: page(1), 2: page(3)}


@pytest.mark.parametrize("seed", range(20))
def test_any_grouping_of_a_history_gives_the_same_database(seed: int) -> None:
    """Random histories that grow and shrink; merged in random groups, and those again."""
    draw = random.Random(seed)
    commit, history = draw.randint(1, 9), []
    numbers: set[int] = set()
    for txid in range(1, 40):
        before, commit = commit, max(1, commit + draw.randint(-6, 8))
        numbers = {pgno for pgno in range(1, commit + 1) if draw.random() < 0.2}
        numbers |= set(range(before + 1, commit + 1)) if txid > 1 else set(range(1, commit + 1))
        history.append(
            file(txid, txid, commit, {pgno: draw.randrange(1 << 40) for pgno in sorted(numbers)})
        )
    wanted = io.BytesIO()
    state = write_image(opened(*history), wanted)
    files = history
    while len(files) > 1:
        cuts = sorted({0, len(files), *draw.choices(range(len(files)), k=len(files) // 2)})
        groups = [files[low:high] for low, high in itertools.pairwise(cuts)]
        files = []
        for group in groups:
            parts: list[bytes] = []
            merge(opened(*group), parts.append)
            files.append(b"".join(parts))
        built = io.BytesIO()
        assert write_image(opened(*files), built) == state
        assert built.getvalue() == wanted.getvalue()
