"""Read and verify an LTX file, page by page or whole."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import msgspec

from dosql.pages import PageSet, lock_page
from dosql.replica.codec import (
    compressed_bytes_max,
    corrupt,
    crc,
    decompress_block,
    decompress_frame,
    take_frame,
)
from dosql.replica.ltx.checksums import page_checksum
from dosql.replica.ltx.encoder import BLOCK_HEAD, FLAG_BLOCK, FRAME_HEAD
from dosql.replica.ltx.header import CHECKSUM_BIT, HEADER_BYTES, Header
from dosql.replica.ltx.index import FRAMES_END, INDEX_LENGTH, TRAILER, entry

_CHUNK_BYTES = 256 * 1024
_CHECKSUM_BYTES = 8


class _Source:
    """Exact reads from a reader that may return less than it was asked for."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._buffer):
            self._fill(count)
            end = count
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def _fill(self, count: int) -> None:
        parts = [self._buffer[self._at :]]
        have = len(parts[0])
        while have < count:
            more = self._read(max(_CHUNK_BYTES, count - have))
            if not more:
                raise corrupt("it is cut off")
            parts.append(more)
            have += len(more)
        self._buffer, self._at = b"".join(parts), 0

    def at_end(self) -> bool:
        return self._at == len(self._buffer) and not self._read(1)


class Decoder:
    """One file from a reader: iterate over it, once, for its pages in ascending order.

    Pages are yielded before the file's checksum is known: nothing made of them may be used until
    the iteration ended without an error. Memory: one page, a read buffer, 10 bytes per page.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """``read`` is that of a binary file, of a socket, of an HTTP body: up to n bytes, empty
        only at the end.

        Raises:
            CorruptError: no file starts here.
        """
        self._source = _Source(read)
        raw = self._source.take(HEADER_BYTES)
        self.header = Header.unpack(raw)
        self._crc = crc(raw)
        self._started = False
        self.post_apply_checksum = 0
        """Of the database after the file, 0 if none is kept; known behind the last page."""
        self.file_checksum = 0
        """Known behind the last page."""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Page number and content.

        Raises:
            CorruptError: a byte of the file is not what was written.
        """
        if self._started:
            raise ValueError("the pages of this file were read before")
        self._started = True
        return self._pages()

    def _pages(self) -> Iterator[tuple[int, bytes]]:
        take, page_size, commit = self._source.take, self.header.page_size, self.header.commit
        is_snapshot, lock = self.header.is_snapshot, lock_page(self.header.page_size)
        tracked = is_snapshot and not self.header.no_checksum
        checksum, total, last, offset = self._crc, 0, 0, HEADER_BYTES
        index = bytearray()
        while True:
            head = take(FRAME_HEAD.size)
            if head == FRAMES_END:
                break
            pgno, head, body, page = _frame(head, take, page_size)
            if not last < pgno <= commit or pgno == lock:
                raise corrupt(f"page {pgno} behind {last}, of {commit} pages")
            if is_snapshot and pgno != last + 1 and not (last + 1 == lock == pgno - 1):
                raise corrupt(f"a snapshot without page {last + 1}")
            checksum = crc(page, crc(head, checksum))
            if tracked:
                total ^= page_checksum(pgno, page)
            size = len(head) + body
            index += entry(pgno, offset, size)
            offset += size
            last = pgno
            yield pgno, page
        if is_snapshot and last != commit and not (commit == lock == last + 1):
            raise corrupt(f"a snapshot without page {last + 1}")
        self._finish(checksum, bytes(index) + b"\0", CHECKSUM_BIT | total if tracked else None)

    def _finish(self, checksum: int, index: bytes, database: int | None) -> None:
        """Verify everything behind the pages; ``index`` is what the pages say it must be."""
        tail = self._source.take(len(index) + INDEX_LENGTH.size + TRAILER.size)
        post, stored = TRAILER.unpack(tail[-TRAILER.size :])
        if CHECKSUM_BIT | crc(tail[:-_CHECKSUM_BYTES], crc(FRAMES_END, checksum)) != stored:
            raise corrupt("its checksum does not match")
        if not self._source.at_end():
            raise corrupt("there is something behind its end")
        if tail[: -TRAILER.size] != index + INDEX_LENGTH.pack(len(index)):
            raise corrupt("the page index does not fit the pages")
        if self.header.no_checksum:
            if post:
                raise corrupt("a checksum of the database that nothing can have kept")
        elif not post & CHECKSUM_BIT:
            raise corrupt("the checksum of the database is missing")
        elif database is not None and post != database:
            raise corrupt("the checksum of the database does not match")
        elif not self.header.commit and post != CHECKSUM_BIT:
            raise corrupt("a checksum of a database that is gone")
        self.post_apply_checksum, self.file_checksum = post, stored


def _frame(
    head: bytes, take: Callable[[int], bytes], page_size: int
) -> tuple[int, bytes, int, bytes]:
    """Page number, the head as the checksum covers it, length of the rest, content."""
    pgno, flags = FRAME_HEAD.unpack(head)
    if flags == FLAG_BLOCK:
        head += take(BLOCK_HEAD.size - FRAME_HEAD.size)
        length = BLOCK_HEAD.unpack(head)[2]
        if length > compressed_bytes_max(page_size):
            raise corrupt("a page is longer than it can be")
        return pgno, head, length, decompress_block(take(length), page_size)
    if flags:
        raise corrupt("unknown flags of a page")
    data = take_frame(take, page_size)
    return pgno, head, len(data), decompress_frame(data, page_size)


def decode_page(frame: bytes, page_size: int) -> tuple[int, bytes]:
    """Number and content of the page in one frame, cut out of the file by `PageIndex`.

    No checksum covers a bare block: compare the number with the one asked for, and verify whole
    files in the background.

    Raises:
        CorruptError: it is not exactly one frame.
    """
    source = _Source(io.BytesIO(frame).read)
    pgno, _, _, page = _frame(source.take(FRAME_HEAD.size), source.take, page_size)
    if not pgno or not source.at_end():
        raise corrupt("it is not one page")
    return pgno, page


class LtxFile(msgspec.Struct, frozen=True):
    """A verified file in memory."""

    header: Header
    pages: dict[int, bytes]
    post_apply_checksum: int
    file_checksum: int

    @property
    def page_set(self) -> PageSet:
        """Its pages without their history."""
        return PageSet(self.header.page_size, self.header.commit, self.pages)


def decode(data: bytes) -> LtxFile:
    """Read a whole file out of memory.

    Raises:
        CorruptError: it is not a sound file, to the last byte.
    """
    decoder = Decoder(io.BytesIO(data).read)
    pages = dict(decoder)
    return LtxFile(decoder.header, pages, decoder.post_apply_checksum, decoder.file_checksum)
