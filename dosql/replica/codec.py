"""CRC-64/GO-ISO and LZ4 as LTX files use them: bounded in memory whatever the input, and typed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol, cast

import lz4.block as _block  # type: ignore[import-untyped]
import lz4.frame as _frame  # type: ignore[import-untyped]
from fastcrc import crc64

from dosql.errors import CorruptError

_FRAME_MAGIC = b"\x04\x22\x4d\x18"
_CONTENT_SIZE = struct.Struct("<Q")
_BLOCK_SIZE = struct.Struct("<I")
_STORED_BIT = 0x8000_0000

# The bits of a frame's FLG byte (LZ4 frame format 1.6).
_FLG_VERSION_MASK, _FLG_VERSION = 0xC0, 0x40
_FLG_BLOCK_CHECKSUM, _FLG_CONTENT_SIZE, _FLG_CONTENT_CHECKSUM, _FLG_DICTIONARY = 16, 8, 4, 1


class _FrameDecompressor(Protocol):
    eof: bool

    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


# lz4 has no type hints; these lines are all that dosql knows of it.
_block_compress = cast("Callable[..., bytes]", _block.compress)
_block_decompress = cast("Callable[..., bytes]", _block.decompress)
_frame_compress = cast("Callable[..., bytes]", _frame.compress)
_frame_decompressor = cast("Callable[[], _FrameDecompressor]", _frame.LZ4FrameDecompressor)
_block_error = cast("type[Exception]", _block.LZ4BlockError)

crc = crc64.go_iso
"""CRC-64/GO-ISO (check value ``b90956c775a41001``); ``crc(b, crc(a))`` is that of a then b."""


def corrupt(what: str) -> CorruptError:
    """The one error for stored bytes of the replica that are not what was written."""
    return CorruptError(f"The replica file is damaged: {what}.", code="replica_corrupt")


def compressed_bytes_max(size: int) -> int:
    """The longest LZ4 block for ``size`` bytes of any content."""
    return size + size // 255 + 16


def compress_block(data: bytes) -> bytes:
    """One bare LZ4 block; longer than the data when it does not compress."""
    return _block_compress(data, store_size=False)


def decompress_block(data: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes out of one LZ4 block; never allocates more.

    Raises:
        CorruptError: it is not a block, or holds more or fewer bytes.
    """
    try:
        content = _block_decompress(data, uncompressed_size=size)
    except (_block_error, ValueError, OverflowError) as error:
        raise corrupt("a page cannot be decompressed") from error
    if len(content) != size:
        raise corrupt("a page has the wrong size")
    return content


def compress_frame(data: bytes) -> bytes:
    """One LZ4 frame as old readers want it: 64 KiB blocks, content checksum, no content size."""
    return _frame_compress(
        data,
        block_size=4,  # LZ4F_max64KB
        content_checksum=True,
        store_size=False,
    )


def take_frame(take: Callable[[int], bytes], size: int) -> bytes:
    """Cut one LZ4 frame that may hold at most ``size`` bytes of content off a stream.

    ``take`` returns exactly as many bytes as it is asked for, or raises.

    Raises:
        CorruptError: no frame starts here, or it is longer than the content can need.
    """
    start = take(7)
    flags = start[4]
    if start[:4] != _FRAME_MAGIC or flags & _FLG_VERSION_MASK != _FLG_VERSION:
        raise corrupt("a page is not an LZ4 frame")
    parts = [start]
    if flags & _FLG_DICTIONARY:
        raise corrupt("a page needs a dictionary")
    if flags & _FLG_CONTENT_SIZE:
        parts.append(take(8))
        if _CONTENT_SIZE.unpack((start + parts[-1])[6:14])[0] != size:
            raise corrupt("a page has the wrong size")
    left = compressed_bytes_max(size)
    while True:
        head = take(4)
        parts.append(head)
        length = _BLOCK_SIZE.unpack(head)[0] & ~_STORED_BIT
        if head == bytes(4):
            break
        left -= length
        if left < 0 or not length:  # an empty block would let a frame go on for ever
            raise corrupt("a page is longer than it can be")
        parts.append(take(length + (4 if flags & _FLG_BLOCK_CHECKSUM else 0)))
    if flags & _FLG_CONTENT_CHECKSUM:
        parts.append(take(4))
    return b"".join(parts)


def decompress_frame(data: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes out of one LZ4 frame that `take_frame` cut; its checksum is verified.

    Raises:
        CorruptError: it is damaged, or holds more or fewer bytes.
    """
    decompressor = _frame_decompressor()
    try:
        content = decompressor.decompress(data, max_length=size + 1)
    except (RuntimeError, ValueError, EOFError, OverflowError) as error:
        raise corrupt("a page cannot be decompressed") from error
    if len(content) != size or not decompressor.eof:
        raise corrupt("a page has the wrong size")
    return content
