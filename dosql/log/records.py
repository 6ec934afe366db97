"""The bytes of the commit log: a pure codec, no I/O.

A segment is a run of *groups*; a group is what one sync made durable together. Integers are
little-endian. A group starts at a multiple of 512 bytes, so that the next one can be found behind
a damaged one::

    group header   magic 8 | sequence u64 | log id u64 | body bytes u64 | records u32 | crc32 u32
    record header  kind u8, 3 zero | key 40 | txid u64 | timestamp ms u64 | page size u32
                   | commit u32 | pages u32 | body crc32 u32 | header crc32 u32
    record body    page numbers u32 each | page contents

Each crc covers the bytes before it in its header; the body crc covers the record's body. The
record header has its own so that a flipped byte in a page condemns one object, not the log.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec

from dosql.pages import PageSet

ALIGNMENT = 512
MAGIC = b"DOSQLOG1"
_GROUP = struct.Struct("<8sQQQI")
_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<B3x40sQQIIII")
GROUP_HEADER_BYTES = _GROUP.size + _CRC.size
RECORD_HEADER_BYTES = _RECORD.size + _CRC.size
_BATCH, _DROP = 1, 2


class ObjectKey(msgspec.Struct, frozen=True):
    """One life of one object: its id, and which incarnation. A key is never used again."""

    id: bytes
    incarnation: int

    @property
    def raw(self) -> bytes:
        """40 bytes."""
        return self.id + self.incarnation.to_bytes(8, "little")

    @classmethod
    def from_raw(cls, raw: bytes) -> ObjectKey:
        """The counterpart of `raw`."""
        return cls(raw[:32], int.from_bytes(raw[32:], "little"))

    @property
    def filename(self) -> str:
        """The database file's name."""
        return f"{self.id.hex()}-{self.incarnation:016x}.sqlite"

    @classmethod
    def from_filename(cls, name: str) -> ObjectKey | None:
        """The counterpart of `filename`; None for any other name."""
        id, _, rest = name.partition("-")
        try:
            key = cls(bytes.fromhex(id), int(rest.partition(".")[0], 16))
        except ValueError:
            return None
        return key if key.filename == name else None


class Batch(msgspec.Struct, frozen=True):
    """The pages one object changed since its batch ``txid - 1``."""

    key: ObjectKey
    txid: int
    timestamp_ms: int
    pages: PageSet


class Drop(msgspec.Struct, frozen=True):
    """The object's life ended: earlier batches are void, its files go."""

    key: ObjectKey


class DamagedBatch(msgspec.Struct, frozen=True):
    """A batch whose header is intact and whose pages are not."""

    key: ObjectKey
    txid: int


Record = Batch | Drop
Found = Batch | Drop | DamagedBatch


class GroupHeader(msgspec.Struct, frozen=True):
    """What a reader needs before the body."""

    sequence: int
    log_id: int
    body_bytes: int
    record_count: int

    @property
    def padded_bytes(self) -> int:
        """From this group's start to the next one's."""
        return padded(GROUP_HEADER_BYTES + self.body_bytes)


class DamagedGroupError(Exception):
    """The records of a group cannot be told apart."""


def padded(count: int) -> int:
    """``count`` rounded up to whole blocks."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def encode_group(sequence: int, log_id: int, records: Sequence[Record]) -> bytes:
    """All of a group, padded to whole blocks."""
    parts = [part for record in records for part in _encode_record(record)]
    body_bytes = sum(map(len, parts))
    header = _GROUP.pack(MAGIC, sequence, log_id, body_bytes, len(records))
    header += _CRC.pack(zlib.crc32(header))
    total = len(header) + body_bytes
    return b"".join([header, *parts, bytes(padded(total) - total)])


def _encode_record(record: Record) -> list[bytes]:
    if isinstance(record, Drop):
        header = _RECORD.pack(_DROP, record.key.raw, 0, 0, 0, 0, 0, 0)
        return [header + _CRC.pack(zlib.crc32(header))]
    pages = record.pages
    numbers = struct.pack(f"<{len(pages.pages)}I", *pages.pages)
    body = [numbers, *pages.pages.values()]
    crc = 0
    for part in body:
        crc = zlib.crc32(part, crc)
    header = _RECORD.pack(
        _BATCH,
        record.key.raw,
        record.txid,
        record.timestamp_ms,
        pages.page_size,
        pages.commit,
        len(pages.pages),
        crc,
    )
    return [header + _CRC.pack(zlib.crc32(header)), *body]


def decode_group_header(data: bytes, offset: int = 0) -> GroupHeader | None:
    """The header at ``offset``, or None if there is no intact one."""
    end = offset + _GROUP.size
    if len(data) < end + _CRC.size or data[offset : offset + 8] != MAGIC:
        return None
    if _CRC.unpack_from(data, end)[0] != zlib.crc32(data[offset:end]):
        return None
    _, sequence, log_id, body_bytes, record_count = _GROUP.unpack_from(data, offset)
    return GroupHeader(sequence, log_id, body_bytes, record_count)


def decode_body(header: GroupHeader, body: bytes) -> list[Found]:
    """The records of a group.

    A record whose header is intact and whose body is not comes back as `DamagedBatch`.

    Raises:
        DamagedGroupError: the body is short, or a record header is wrong.
    """
    if len(body) != header.body_bytes:
        raise DamagedGroupError("the group is cut short")
    found: list[Found] = []
    at = 0
    for _ in range(header.record_count):
        record, at = _decode_record(body, at)
        found.append(record)
    if at != len(body):
        raise DamagedGroupError("bytes follow the last record")
    return found


def _decode_record(body: bytes, at: int) -> tuple[Found, int]:
    end = at + _RECORD.size
    if len(body) < end + _CRC.size:
        raise DamagedGroupError("a record header is cut short")
    if _CRC.unpack_from(body, end)[0] != zlib.crc32(body[at:end]):
        raise DamagedGroupError("a record header is damaged")
    kind, raw, txid, timestamp_ms, page_size, commit, count, crc = _RECORD.unpack_from(body, at)
    key = ObjectKey.from_raw(raw)
    at = end + _CRC.size
    if kind == _DROP:
        return Drop(key), at
    if kind != _BATCH:
        raise DamagedGroupError(f"unknown kind of record {kind}: written by a newer version?")
    end = at + 4 * count + page_size * count
    content = body[at:end]
    if len(content) != end - at:
        raise DamagedGroupError("a record body is cut short")
    if zlib.crc32(content) != crc:
        return DamagedBatch(key, txid), end
    numbers = struct.unpack_from(f"<{count}I", content)
    first = 4 * count
    pages = {
        pgno: content[first + page_size * index : first + page_size * (index + 1)]
        for index, pgno in enumerate(numbers)
    }
    return Batch(key, txid, timestamp_ms, PageSet(page_size, commit, pages)), end
