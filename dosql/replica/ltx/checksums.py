"""Checksums of pages and whole databases, as LTX keeps them."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from dosql.replica.codec import crc
from dosql.replica.ltx.header import CHECKSUM_BIT

_PGNO = struct.Struct(">I")


def page_checksum(pgno: int, page: bytes) -> int:
    """Of one page at its place; bit 63 is set."""
    return CHECKSUM_BIT | crc(page, crc(_PGNO.pack(pgno)))


def database_checksum(pages: Iterable[tuple[int, bytes]]) -> int:
    """Of a database, all pages but the lock page, in any order; `CHECKSUM_BIT` if empty.

    It can be kept while pages change: XOR the old page's checksum out and the new one's in, and
    set bit 63 again.
    """
    total = 0
    for pgno, page in pages:
        total ^= page_checksum(pgno, page)
    return CHECKSUM_BIT | total
