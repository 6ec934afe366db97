"""LTX files for tests, made from few words."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping

from dosql.replica.ltx import Decoder, Header, encode


def header(
    low: int, high: int, commit: int, *, page_size: int = 512, timestamp_ms: int | None = None
) -> Header:
    """Of the file ``low-high``; its time is its last TXID in seconds."""
    when = high * 1000 if timestamp_ms is None else timestamp_ms
    return Header(
        page_size=page_size, commit=commit, min_txid=low, max_txid=high, timestamp_ms=when
    )


def page(mark: int, page_size: int = 512) -> bytes:
    """A page that can be told from others."""
    return mark.to_bytes(8, "big") * (page_size // 8)


def file(low: int, high: int, commit: int, marks: Mapping[int, int]) -> bytes:
    """A file whose pages hold ``page(mark)``."""
    return encode(header(low, high, commit), {pgno: page(mark) for pgno, mark in marks.items()})


def opened(*files: bytes) -> list[Decoder]:
    """As the merge and the image take them."""
    return [Decoder(io.BytesIO(data).read) for data in files]


GOLDEN = bytes.fromhex(
    "4c545831 00000002 00000200 00000001"  # magic, NoChecksum, page size, commit
    "0000000000000001 0000000000000001 0000018bcfe56800"  # TXIDs, time
    + "00"
    * 60
    + "00000001 0001 0000000c 1f000100ffe8500000000000"  # page 1: flags, length, LZ4 block
    "000000000000"  # end of the pages
    "01 64 16 00 0000000000000004"  # index: page 1 at 100, 22 bytes; its length
    "0000000000000000 8716efe5beb684b6"  # no checksum of the database, that of the file
)
"""One page of zeros; Litestream restored it."""
GOLDEN_HEADER = Header(
    page_size=512, commit=1, min_txid=1, max_txid=1, timestamp_ms=1_700_000_000_000
)
SIZES = [1 << power for power in range(9, 17)]


def pages_like(seed: int, page_size: int, numbers: list[int]) -> dict[int, bytes]:
    """Pages as databases have them: empty, repetitive, and such that do not compress."""
    draw = random.Random(seed)
    kinds = [
        lambda: bytes(page_size),
        lambda: draw.randbytes(page_size),
        lambda: page(draw.randrange(1 << 60), page_size),
    ]
    return {number: draw.choice(kinds)() for number in numbers}
