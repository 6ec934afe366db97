"""Write an LTX file, page by page or from memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from dosql.pages import lock_page
from dosql.replica.codec import compress_block, compress_frame, crc
from dosql.replica.ltx.checksums import page_checksum
from dosql.replica.ltx.header import CHECKSUM_BIT, HEADER_BYTES, Header
from dosql.replica.ltx.index import FRAMES_END, INDEX_LENGTH, TRAILER, entry

BLOCK_HEAD = struct.Struct(">IHI")
FRAME_HEAD = struct.Struct(">IH")
FLAG_BLOCK = 1
"""The page is a bare LZ4 block behind its length; without the flag it is an LZ4 frame."""
_BUFFER_BYTES = 1 << 20
_POST = struct.Struct(">Q")


class Encoder:
    """Pages in, file out: holds a megabyte, and some 10 bytes of index per page.

    Nothing is a file until `finish` returned. What the caller does wrong raises ValueError.
    """

    def __init__(
        self, header: Header, write: Callable[[bytes], object], *, legacy: bool = False
    ) -> None:
        """``legacy``: LZ4 frames, which Litestream before 0.5.16 wants and later ones read."""
        self.header = header
        self._write = write
        self._legacy = legacy
        self._lock = lock_page(header.page_size)
        self._last = 0
        self._parts = [header.pack()]
        self._buffered = HEADER_BYTES
        self._crc = crc(self._parts[0])
        self._index = bytearray()
        self._total = 0
        self.size = HEADER_BYTES
        """Bytes of the file so far."""

    def page(self, pgno: int, data: bytes) -> None:
        """Add a page; numbers ascend, and in a snapshot none is left out but the lock page."""
        header = self.header
        if not self._last < pgno <= header.commit or pgno == self._lock:
            raise ValueError(f"page {pgno} may not follow {self._last} in {header.commit} pages")
        if header.min_txid == 1 and pgno != self._next():
            raise ValueError(f"page {self._next()} is missing from a snapshot")
        if len(data) != header.page_size:
            raise ValueError(f"page {pgno} has {len(data)} bytes")
        self._last = pgno
        if self._legacy:
            head, body = FRAME_HEAD.pack(pgno, 0), compress_frame(data)
        else:
            body = compress_block(data)
            head = BLOCK_HEAD.pack(pgno, FLAG_BLOCK, len(body))
        self._crc = crc(data, crc(head, self._crc))
        if not header.no_checksum and header.is_snapshot:
            self._total ^= page_checksum(pgno, data)
        size = len(head) + len(body)
        self._index += entry(pgno, self.size, size)
        self.size += size
        self._parts += head, body
        self._buffered += size
        if self._buffered >= _BUFFER_BYTES:
            self._flush()

    def finish(self, post_apply_checksum: int | None = None) -> int:
        """Write the rest and return the file's checksum.

        ``post_apply_checksum`` is that of the database after the file, wanted only for an
        increment whose header says that checksums are kept.
        """
        header = self.header
        if header.is_snapshot and self._next() <= header.commit:
            raise ValueError(f"page {self._next()} is missing from a snapshot")
        if header.no_checksum:
            post = 0
        elif header.is_snapshot:
            post = CHECKSUM_BIT | self._total
        else:
            post = post_apply_checksum or 0
            if not post & CHECKSUM_BIT:
                raise ValueError("the checksum of the database is missing")
        self._index.append(0)
        tail = (
            FRAMES_END + self._index + INDEX_LENGTH.pack(len(self._index)) + TRAILER.pack(post, 0)
        )[: -_POST.size]
        file_checksum = CHECKSUM_BIT | crc(tail, self._crc)
        self._parts += tail, _POST.pack(file_checksum)
        self.size += len(tail) + _POST.size
        self._flush()
        return file_checksum

    def _next(self) -> int:
        following = self._last + 1
        return following + 1 if following == self._lock else following

    def _flush(self) -> None:
        self._write(b"".join(self._parts))
        self._parts = []
        self._buffered = 0


def encode(header: Header, pages: Mapping[int, bytes], *, legacy: bool = False) -> bytes:
    """A whole file in memory; ``pages`` ascend by number.

    A page that the writer's batch brought twice, or beyond ``commit``, must not be in it.

    Raises:
        ValueError: the header or the pages break a rule of the format.
    """
    parts: list[bytes] = []
    encoder = Encoder(header, parts.append, legacy=legacy)
    for pgno, page in pages.items():
        encoder.page(pgno, page)
    encoder.finish()
    return b"".join(parts)
