"""The LTX codec against every kind of damage: noticed, or harmless."""

from __future__ import annotations

import random
import resource
import struct

import lz4.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dosql.errors import CorruptError
from dosql.pages import lock_page
from dosql.replica.codec import crc
from dosql.replica.ltx import (
    CHECKSUM_BIT,
    TAIL_BYTES_MIN,
    Decoder,
    Encoder,
    Header,
    LtxFile,
    database_checksum,
    decode,
    decode_page,
    encode,
    read_index,
    tail_bytes,
)
from dosql.replica.ltx.index import uvarint
from tests.replica.ltx_files import GOLDEN, GOLDEN_HEADER, header, page, pages_like


def small_files() -> list[bytes]:
    pages = pages_like(5, 512, [1, 2, 3])
    pages[2] = b"abc" * 170 + b"ab"
    return [
        GOLDEN,
        encode(header(1, 9, 3), pages),
        encode(header(4, 9, 30), pages),
        encode(header(4, 9, 30), pages, legacy=True),
        encode(header(4, 4, 30), {}),
    ]


def sound_or_corrupt(data: bytes, original: LtxFile) -> bool:
    """Whether damage was noticed; fails if it was not and shows."""
    try:
        read = decode(data)
    except CorruptError as error:
        return error.code == "replica_corrupt"
    assert read == original
    return False


@pytest.mark.parametrize("number", range(5))
def test_a_flipped_byte_anywhere_is_noticed_or_harmless(number: int) -> None:
    """Every byte of the file; harmless are only bits that do not change the decompressed page."""
    data = small_files()[number]
    original, draw, noticed = decode(data), random.Random(number), 0
    for at in range(len(data)):
        for flip in {1 << draw.randrange(8), 0xFF, draw.randint(1, 255)}:
            damaged = bytearray(data)
            damaged[at] ^= flip
            noticed += sound_or_corrupt(bytes(damaged), original)
    assert noticed > len(data)


@pytest.mark.parametrize("number", range(5))
def test_a_file_cut_off_anywhere_is_corrupt(number: int) -> None:
    data = small_files()[number]
    for length in range(len(data)):
        with pytest.raises(CorruptError):
            decode(data[:length])
    with pytest.raises(CorruptError, match="behind its end"):
        decode(data + b"\0")


@given(st.integers(0, 4), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_splice_of_bytes_is_noticed_or_harmless(number: int, data: st.DataObject) -> None:
    file = small_files()[number]
    at = data.draw(st.integers(0, len(file)))
    end = data.draw(st.integers(at, min(len(file), at + 40)))
    sound_or_corrupt(file[:at] + data.draw(st.binary(max_size=40)) + file[end:], decode(file))


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_raise_anything_but_corrupt_error(data: bytes) -> None:
    for attempt in (
        lambda: decode(data),
        lambda: decode(GOLDEN[:100] + data),
        lambda: read_index(data, 1000),
        lambda: decode_page(data, 512),
        lambda: decode_page(b"\0\0\0\1\0\0\x04\x22\x4d\x18" + data, 512),
    ):
        with pytest.raises(CorruptError):
            attempt()


@pytest.mark.parametrize("number", range(4))
def test_a_damaged_index_is_noticed_or_the_same(number: int) -> None:
    data = small_files()[number]
    size = tail_bytes(data[-TAIL_BYTES_MIN:], len(data))
    original = read_index(data[-size:], len(data)).frames
    for at in range(len(data) - size, len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                frames = read_index(bytes(damaged[-size:]), len(data)).frames
            except CorruptError:
                continue
            # A number can turn into another one between its neighbours: `decode_page` tells.
            assert list(frames.values()) == list(original.values())


def test_hostile_sizes_allocate_nothing_of_their_size() -> None:
    """Lengths of 4 GiB and more, in every place that has a length."""
    huge = [
        GOLDEN[:106] + b"\xff" * 4 + GOLDEN[110:],  # of a block
        GOLDEN[:12] + b"\xff" * 4 + GOLDEN[16:],  # pages of the database
        GOLDEN[:132] + b"\xff" * 8 + GOLDEN[140:],  # of the index
        GOLDEN[:100] + b"\0\0\0\1\0\0" + lz4.frame.compress(bytes(1 << 20), content_checksum=True),
        GOLDEN[:100] + b"\0\0\0\1\0\0" + b"\x04\x22\x4d\x18\x6c\x70" + b"\xff" * 60,
        GOLDEN[:100] + b"\0\0\0\1\0\0" + b"\x04\x22\x4d\x18\x64\x70\x00" + b"\0\0\0\x80" * 60,
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in huge:
        with pytest.raises(CorruptError):
            decode(data)
        with pytest.raises(CorruptError):
            read_index(data[-40:], 1 << 60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # KiB


def test_a_page_of_endless_empty_blocks_is_not_read_to_its_end() -> None:
    """It would never end, and be kept in memory meanwhile."""
    start = GOLDEN[:100] + b"\0\0\0\1\0\0" + b"\x04\x22\x4d\x18\x64\x70\x00"
    pieces = iter([start, *[b"\0\0\0\x80" * 16_384] * 9])
    with pytest.raises(CorruptError, match="longer than it can be"):
        list(Decoder(lambda _: next(pieces)))


def test_a_tracked_snapshot_whose_database_checksum_is_wrong_is_corrupt() -> None:
    """Its own checksum matches: whoever wrote it had lost track."""
    parts: list[bytes] = []
    encoder = Encoder(replace(header(1, 1, 2), no_checksum=False), parts.append)
    encoder.page(1, page(1))
    encoder.page(2, page(2))
    encoder._total ^= 1  # no public way leads here
    encoder.finish()
    with pytest.raises(CorruptError, match="checksum of the database"):
        decode(b"".join(parts))


def test_a_tracked_increment_carries_the_checksum_of_the_database() -> None:
    wanted = database_checksum([(1, page(1)), (2, page(2))])
    parts: list[bytes] = []
    head = replace(header(2, 2, 2), no_checksum=False, pre_apply_checksum=CHECKSUM_BIT | 5)
    encoder = Encoder(head, parts.append)
    encoder.page(2, page(2))
    with pytest.raises(ValueError, match="missing"):
        encoder.finish()
    encoder = Encoder(head, parts.append)
    encoder.page(2, page(2))
    parts.clear()
    encoder.finish(wanted)
    assert decode(b"".join(parts)).post_apply_checksum == wanted


# --- files that no sound writer writes, their checksum right --------------------------------------


def forged(
    head: Header,
    numbers: list[int],
    *,
    index: bytes | None = None,
    post: int = 0,
) -> bytes:
    """Pages of zeros under these numbers, whatever the rules say."""
    raw, covered, entries = head.pack(), [head.pack()], bytearray()
    block = GOLDEN[110:122]
    for pgno in numbers:
        frame_head = struct.pack(">IHI", pgno, 1, len(block))
        entries += uvarint(pgno) + uvarint(len(raw)) + uvarint(len(frame_head) + len(block))
        raw += frame_head + block
        covered += frame_head, bytes(512)
    entries = bytearray(index) if index is not None else entries + b"\0"
    tail = bytes(6) + entries + struct.pack(">QQ", len(entries), post)
    return raw + tail + struct.pack(">Q", CHECKSUM_BIT | crc(b"".join([*covered, tail])))


def test_the_forger_can_also_write_sound_files() -> None:
    assert forged(GOLDEN_HEADER, [1]) == GOLDEN


@pytest.mark.parametrize(
    ("head", "numbers", "fault"),
    [
        (header(2, 2, 3), [2, 1], "page 1 behind 2"),
        (header(2, 2, 3), [2, 2], "page 2 behind 2"),
        (header(2, 2, 3), [4], "page 4 behind 0"),
        (header(2, 2, lock_page(512) + 5), [lock_page(512)], "page 2097153"),
        (header(1, 1, 3), [1, 3], "without page 2"),
        (header(1, 1, 3), [2, 3], "without page 1"),
        (header(1, 1, 3), [1, 2], "without page 3"),
        (header(1, 1, 3), [], "without page 1"),
    ],
    ids=str,
)
def test_pages_that_break_a_rule_are_corrupt(head: Header, numbers: list[int], fault: str) -> None:
    with pytest.raises(CorruptError, match=fault):
        decode(forged(head, numbers))


@pytest.mark.parametrize("index", ["02641600", "01651600", "01641700", "00", "0164160002"])
def test_an_index_that_does_not_fit_the_pages_is_corrupt(index: str) -> None:
    with pytest.raises(CorruptError):
        decode(forged(GOLDEN_HEADER, [1], index=bytes.fromhex(index)))


def test_checksums_of_the_database_where_none_is_kept_are_corrupt() -> None:
    tracked = replace(header(2, 2, 3), no_checksum=False, pre_apply_checksum=CHECKSUM_BIT)
    with pytest.raises(CorruptError, match="nothing can have kept"):
        decode(forged(header(2, 2, 3), [1], post=CHECKSUM_BIT | 1))
    with pytest.raises(CorruptError, match="is missing"):
        decode(forged(tracked, [1], post=1))
    with pytest.raises(CorruptError, match="is gone"):
        decode(forged(replace(tracked, commit=0), [], post=CHECKSUM_BIT | 1))
    assert decode(forged(replace(tracked, commit=0), [], post=CHECKSUM_BIT)).pages == {}
