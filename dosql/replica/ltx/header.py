"""The first 100 bytes of an LTX file, format version 3, as Litestream 0.5 reads and writes it.

All integers are big-endian. The format names its version nowhere but in the magic.
"""

from __future__ import annotations

import struct

import msgspec
from msgspec.structs import replace

from dosql.errors import CorruptError
from dosql.replica.codec import corrupt

HEADER_BYTES = 100
_LAYOUT = struct.Struct(">4sIIIQQqQQQIIQ20x")
_MAGIC = b"LTX1"
_NO_CHECKSUM = 0x2
CHECKSUM_BIT = 1 << 63
"""Set in every checksum that is one: 0 means that there is none."""

PAGE_SIZES = frozenset(1 << power for power in range(9, 17))
_U32, _U64 = 1 << 32, 1 << 64
_AHEAD_SALTS = (0x646F7371, 0x61686561)
"""In the place of the -wal's salts they say that what stands for its size is `Header.reach`."""
_AHEAD_OFFSET = 32
"""The least that a size needs to be allowed."""


class Header(msgspec.Struct, frozen=True):
    """What a file brings: the database after ``max_txid``, given that before ``min_txid``."""

    page_size: int
    commit: int
    """Size of the database after ``max_txid``, in pages; 0: it was deleted."""
    min_txid: int
    max_txid: int
    timestamp_ms: int
    """Of the last transaction, milliseconds since the Unix epoch."""
    node_id: int = 0
    """64 bits of the writer's own, 0 after compaction. dosql: the epoch of the object's owner."""
    no_checksum: bool = True
    """No checksum of the whole database is kept. Litestream cannot restore a chain whose last
    file keeps one, so that dosql writes none."""
    pre_apply_checksum: int = 0
    """Of the database before ``min_txid``; 0 in a snapshot and with ``no_checksum``."""
    wal_offset: int = 0
    """Where the pages stood in the source's -wal, in bytes; 0: not from one."""
    wal_size: int = 0
    wal_salt1: int = 0
    wal_salt2: int = 0

    @property
    def is_snapshot(self) -> bool:
        """It holds every page: there is nothing before TXID 1."""
        return self.min_txid == 1

    @property
    def reach(self) -> int:
        """The TXID of the state that it brings: `max_txid`, but for files made by `reaching`."""
        if self.wal_offset == _AHEAD_OFFSET and (self.wal_salt1, self.wal_salt2) == _AHEAD_SALTS:
            return max(self.max_txid, self.wal_size)
        return self.max_txid

    def reaching(self, txid: int) -> Header:
        """The same, for a file that brings more than its name says: the state after ``txid``.

        Its successor is the file that closes the gap, ``max_txid + 1`` to ``txid``, without pages;
        so it says how that is named. Other readers take the fields for a place in a -wal.
        """
        salt1, salt2 = _AHEAD_SALTS
        return replace(
            self, wal_offset=_AHEAD_OFFSET, wal_size=txid, wal_salt1=salt1, wal_salt2=salt2
        )

    def fault(self) -> str | None:
        """What is wrong with it, None if nothing is."""
        u64 = (
            self.min_txid,
            self.max_txid,
            self.node_id,
            self.pre_apply_checksum,
            self.wal_offset,
            self.wal_size,
        )
        if self.page_size not in PAGE_SIZES:
            return "the page size is not a power of two from 512 to 65536"
        if not all(0 <= value < _U32 for value in (self.commit, self.wal_salt1, self.wal_salt2)):
            return "a field is not an unsigned 32-bit number"
        if not all(0 <= value < _U64 for value in u64) or abs(self.timestamp_ms) >= 1 << 63:
            return "a field is not a 64-bit number"
        if not 1 <= self.min_txid <= self.max_txid:
            return "the transaction ids are not a range from 1"
        if (self.wal_size or self.wal_salt1 or self.wal_salt2) and not self.wal_offset:
            return "a size or salt of the source, but no offset in it"
        if self.no_checksum or self.is_snapshot:
            return "a checksum of what was before" if self.pre_apply_checksum else None
        return None if self.pre_apply_checksum & CHECKSUM_BIT else "no checksum of what was before"

    def pack(self) -> bytes:
        """The 100 bytes.

        Raises:
            ValueError: the header has a fault.
        """
        fault = self.fault()
        if fault is not None:
            raise ValueError(f"cannot write this header: {fault}")
        return _LAYOUT.pack(
            _MAGIC,
            _NO_CHECKSUM if self.no_checksum else 0,
            self.page_size,
            self.commit,
            self.min_txid,
            self.max_txid,
            self.timestamp_ms,
            self.pre_apply_checksum,
            self.wal_offset,
            self.wal_size,
            self.wal_salt1,
            self.wal_salt2,
            self.node_id,
        )

    @staticmethod
    def unpack(data: bytes) -> Header:
        """Read the header at the start of ``data``, which may be longer.

        It is covered by the file's checksum only: alone, it can be wrong and look sound.

        Raises:
            CorruptError: it is not the header of such a file.
        """
        if len(data) < HEADER_BYTES:
            raise corrupt("the header is cut off")
        magic, flags, page_size, commit, low, high, when, pre, offset, size, salt1, salt2, node = (
            _LAYOUT.unpack_from(data)
        )
        if magic != _MAGIC:
            raise corrupt("it is not an LTX file")
        if flags & ~_NO_CHECKSUM:
            raise corrupt("unknown flags in the header")
        header = Header(
            page_size=page_size,
            commit=commit,
            min_txid=low,
            max_txid=high,
            timestamp_ms=when,
            node_id=node,
            no_checksum=bool(flags & _NO_CHECKSUM),
            pre_apply_checksum=pre,
            wal_offset=offset,
            wal_size=size,
            wal_salt1=salt1,
            wal_salt2=salt2,
        )
        fault = header.fault()
        if fault is not None:
            raise corrupt(fault)
        return header


def sequence_fault(before: int, header: Header) -> CorruptError | None:
    """Why a file may not follow the state at TXID ``before``: it leaves a gap, or brings nothing.

    It may start at or before ``before``, as Litestream's plans do: a page that it holds is at
    least as new, for its range ends later.
    """
    if header.min_txid > before + 1:
        message = f"The replica has a gap: nothing from TXID {before + 1} to {header.min_txid - 1}."
        return CorruptError(message, code="replica_gap")
    if header.max_txid <= before:
        message = f"TXID {header.max_txid} of the replica follows {before}: out of order."
        return CorruptError(message, code="replica_gap")
    return None
