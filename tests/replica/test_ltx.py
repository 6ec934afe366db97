"""The LTX codec, against bytes worked out by hand and its rules."""

from __future__ import annotations

import io
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dosql.errors import CorruptError
from dosql.pages import PageSet, lock_page
from dosql.replica.ltx import (
    CHECKSUM_BIT,
    TAIL_BYTES_MIN,
    Decoder,
    Encoder,
    Header,
    LtxFile,
    decode,
    decode_page,
    encode,
    page_checksum,
    read_index,
    tail_bytes,
)
from tests.replica.ltx_files import GOLDEN, GOLDEN_HEADER, SIZES, header, pages_like


def test_a_file_worked_out_by_hand_is_written_byte_by_byte() -> None:
    assert encode(GOLDEN_HEADER, {1: bytes(512)}) == GOLDEN


def test_a_file_worked_out_by_hand_is_read() -> None:
    assert decode(GOLDEN) == LtxFile(GOLDEN_HEADER, {1: bytes(512)}, 0, 0x8716EFE5BEB684B6)


def test_checksums_of_a_tracked_file_are_those_worked_out_by_hand() -> None:
    parts: list[bytes] = []
    encoder = Encoder(replace(GOLDEN_HEADER, no_checksum=False), parts.append)
    encoder.page(1, bytes(512))
    assert encoder.finish() == 0xDBCB04EA8CD9B011
    read = decode(b"".join(parts))
    assert read.post_apply_checksum == page_checksum(1, bytes(512)) == 0xEFB1F44FECD99000


@pytest.mark.parametrize("legacy", [False, True], ids=["block", "frame"])
@pytest.mark.parametrize("page_size", SIZES)
def test_every_page_size_is_read_as_written(page_size: int, legacy: bool) -> None:
    pages = pages_like(page_size, page_size, [1, 2, 3, 9, 127, 128, 20_000])
    head = header(2, 7, 20_000, page_size=page_size)
    data = encode(head, pages, legacy=legacy)
    read = decode(data)
    assert (read.header, read.pages) == (head, pages)
    assert read.page_set == PageSet(page_size, 20_000, pages)


@pytest.mark.parametrize("legacy", [False, True], ids=["block", "frame"])
def test_single_pages_are_read_by_the_index_at_the_end(legacy: bool) -> None:
    pages = pages_like(1, 4096, list(range(3, 4000, 7)))
    data = encode(header(2, 2, 5000, page_size=4096), pages, legacy=legacy)
    wanted = tail_bytes(data[-TAIL_BYTES_MIN:], len(data))
    index = read_index(data[-wanted:], len(data))
    assert list(index.frames) == list(pages)
    assert index.file_checksum == decode(data).file_checksum
    for pgno, (offset, size) in index.frames.items():
        assert decode_page(data[offset : offset + size], 4096) == (pgno, pages[pgno])
    with pytest.raises(CorruptError, match="cut off"):
        read_index(data[-wanted + 1 :], len(data))


headers = st.builds(
    Header,
    page_size=st.sampled_from(SIZES[:3]),
    commit=st.integers(100, 2**32 - 1),
    min_txid=st.integers(2, 2**63),
    max_txid=st.integers(2**63, 2**64 - 1),
    timestamp_ms=st.integers(-(2**63) + 1, 2**63 - 1),
    node_id=st.integers(0, 2**64 - 1),
    wal_offset=st.integers(32, 2**64 - 1),
    wal_size=st.integers(0, 2**64 - 1),
    wal_salt1=st.integers(0, 2**32 - 1),
    wal_salt2=st.integers(0, 2**32 - 1),
)


@given(headers, st.sets(st.integers(1, 100), max_size=5), st.integers(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_header_and_pages_are_read_as_written(
    head: Header, numbers: set[int], seed: int, legacy: bool
) -> None:
    pages = pages_like(seed, head.page_size, sorted(numbers))
    read = decode(encode(head, pages, legacy=legacy))
    assert (read.header, read.pages) == (head, pages)


def test_a_stream_is_read_in_whatever_pieces_it_comes() -> None:
    pages = pages_like(3, 512, list(range(1, 40)))
    stream = io.BytesIO(encode(header(1, 4, 39), pages))
    draw = random.Random(3)
    assert dict(Decoder(lambda _: stream.read(draw.randint(1, 50)))) == pages


def test_the_encoder_holds_a_megabyte_at_most() -> None:
    written: list[int] = []
    encoder = Encoder(header(1, 1, 8000, page_size=4096), lambda data: written.append(len(data)))
    for pgno in range(1, 8001):
        encoder.page(pgno, random.Random(pgno).randbytes(4096))
    encoder.finish()
    assert sum(written) == encoder.size > 32_000_000 and max(written) < 1_200_000


# --- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"page_size": 500},
        {"page_size": 1 << 17},
        {"min_txid": 0},
        {"min_txid": 3, "max_txid": 2},
        {"commit": 1 << 32},
        {"node_id": 1 << 64},
        {"timestamp_ms": 1 << 63},
        {"wal_size": 1},
        {"wal_salt1": 1},
        {"pre_apply_checksum": CHECKSUM_BIT},
        {"no_checksum": False, "min_txid": 2, "max_txid": 2},
        {"no_checksum": False, "pre_apply_checksum": CHECKSUM_BIT},
    ],
    ids=str,
)
def test_a_header_with_a_fault_is_not_written(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="cannot write this header"):
        encode(replace(GOLDEN_HEADER, **change), {1: bytes(512)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "numbers"),
    [
        (header(1, 1, 3), [1, 3]),
        (header(1, 1, 3), [2, 3]),
        (header(1, 1, 3), [1, 2]),
        (header(1, 1, 3), []),
        (header(2, 2, 3), [2, 1]),
        (header(2, 2, 3), [2, 2]),
        (header(2, 2, 3), [4]),
        (header(2, 2, 3), [0]),
        (header(2, 2, lock_page(512) + 5), [lock_page(512)]),
    ],
    ids=str,
)
def test_pages_that_break_a_rule_are_not_written(head: Header, numbers: list[int]) -> None:
    encoder = Encoder(head, lambda _: None)
    with pytest.raises(ValueError, match="page"):
        for number in numbers:
            encoder.page(number, bytes(512))
        encoder.finish()


def test_the_lock_page_is_left_out_of_a_snapshot_that_reaches_it() -> None:
    """65,536-byte pages: the lock page is number 16,385, the database a gigabyte of zeros."""
    lock, empty, spool = lock_page(65536), bytes(65536), io.BytesIO()
    encoder = Encoder(header(1, 1, lock + 1, page_size=65536), spool.write)
    for pgno in range(1, lock + 2):
        if pgno != lock:
            encoder.page(pgno, empty)
    encoder.finish()
    spool.seek(0)
    numbers = [pgno for pgno, _ in Decoder(spool.read)]
    assert len(numbers) == lock and lock not in numbers and numbers[-1] == lock + 1


def test_the_pages_of_a_file_are_read_once() -> None:
    decoder = Decoder(io.BytesIO(GOLDEN).read)
    assert len(list(decoder)) == 1
    with pytest.raises(ValueError, match="before"):
        iter(decoder)


def test_pages_that_nobody_wrote_are_filled_with_zeros() -> None:
    lock = lock_page(65536)
    pages = PageSet(65536, lock + 2, {1: b"a" * 65536, lock + 2: b"b" * 65536})
    assert list(pages.filled(lock - 2).pages) == [1, lock - 1, lock + 1, lock + 2]
    assert pages.filled(lock + 1) is pages


def test_unknown_flags_are_corrupt_not_ignored() -> None:
    for at, size, value in ((4, 4, 3), (104, 2, 3)):
        damaged = bytearray(GOLDEN)
        damaged[at : at + size] = struct.pack({4: ">I", 2: ">H"}[size], value)
        with pytest.raises(CorruptError, match="unknown flags"):
            decode(bytes(damaged))
