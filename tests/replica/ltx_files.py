"""LTX files for tests, made from few words."""

from __future__ import annotations

import io
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
