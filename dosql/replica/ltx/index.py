"""The page index: where each page's frame stands in the file, read from the file's end alone."""

from __future__ import annotations

import struct

import msgspec

from dosql.replica.codec import corrupt
from dosql.replica.ltx.header import HEADER_BYTES

FRAMES_END = bytes(6)
"""Stands behind the last page frame."""
TRAILER = struct.Struct(">QQ")
"""Checksum of the database after the file (0: none), checksum of the file."""
INDEX_LENGTH = struct.Struct(">Q")
TAIL_BYTES_MIN = INDEX_LENGTH.size + TRAILER.size
"""So many of a file's last bytes say how many hold the index."""


def uvarint(value: int) -> bytes:
    """LEB128, as Go's binary.PutUvarint."""
    if value < 0x80:
        return value.to_bytes(1, "big")
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def entry(pgno: int, offset: int, size: int) -> bytes:
    """One page's line of the index."""
    return uvarint(pgno) + uvarint(offset) + uvarint(size)


class PageIndex(msgspec.Struct, frozen=True):
    """Frames of single pages, for ranged reads; see `decode_page`."""

    frames: dict[int, tuple[int, int]]
    """Page number, ascending, to absolute offset and size of its frame, both in bytes."""
    post_apply_checksum: int
    file_checksum: int


def tail_bytes(tail: bytes, file_size: int) -> int:
    """How many of the file's last bytes `read_index` needs, told by its last 24 or more.

    Raises:
        CorruptError: no file of this size ends like that.
    """
    if len(tail) < TAIL_BYTES_MIN or len(tail) > file_size:
        raise corrupt("the page index is cut off")
    (length,) = INDEX_LENGTH.unpack_from(tail, len(tail) - TAIL_BYTES_MIN)
    if not 1 <= length <= file_size - TAIL_BYTES_MIN - HEADER_BYTES - len(FRAMES_END):
        raise corrupt("the page index has an impossible length")
    return int(length) + TAIL_BYTES_MIN


def read_index(tail: bytes, file_size: int) -> PageIndex:
    """Read the index out of the last bytes of a file that is ``file_size`` bytes long.

    Frames must follow each other without a hole, first to last: a flipped bit shows, although
    the file's checksum cannot be verified from its end.

    Raises:
        CorruptError: ``tail`` does not hold a sound index; also when it is shorter than
            `tail_bytes`.
    """
    wanted = tail_bytes(tail, file_size)
    if len(tail) < wanted:
        raise corrupt("the page index is cut off")
    data = tail[len(tail) - wanted : len(tail) - TAIL_BYTES_MIN]
    frames: dict[int, tuple[int, int]] = {}
    at, last, position = 0, 0, HEADER_BYTES
    while True:
        pgno, at = _read_uvarint(data, at)
        if pgno == 0:
            break
        offset, at = _read_uvarint(data, at)
        size, at = _read_uvarint(data, at)
        if pgno <= last or offset != position or not size:
            raise corrupt("the page index is out of order")
        frames[pgno] = (offset, size)
        last, position = pgno, offset + size
    if at != len(data) or position + len(FRAMES_END) + wanted != file_size:
        raise corrupt("the page index does not fit the file")
    return PageIndex(frames, *TRAILER.unpack_from(tail, len(tail) - TRAILER.size))


def _read_uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise corrupt("the page index holds an endless number")
