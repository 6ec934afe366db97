"""Merge consecutive LTX files into one that brings the same: the newest version of every page."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

import msgspec

from dosql.errors import CorruptError
from dosql.pages import lock_page
from dosql.replica.codec import corrupt
from dosql.replica.ltx import Decoder, Encoder, Header, sequence_fault


class Merged(msgspec.Struct, frozen=True):
    """The file that a merge wrote."""

    header: Header
    size: int
    """Bytes."""
    file_checksum: int
    pages: int


def merged_header(headers: Sequence[Header]) -> Header:
    """The header of the merge of files with these: it spans all, and is as late as the last.

    What only one of them can say (place in the -wal, node, checksum of a database) is dropped.

    Raises:
        CorruptError: a gap between two files, one that brings nothing new, or two page sizes.
        ValueError: no files.
    """
    if not headers:
        raise ValueError("nothing to merge")
    first, last = headers[0], headers[-1]
    before = first
    for header in headers[1:]:
        fault = sequence_fault(before.max_txid, header)
        if fault is not None:
            raise fault
        if header.page_size != first.page_size:
            raise _two_page_sizes(first, header)
        before = header
    merged = Header(
        page_size=first.page_size,
        commit=last.commit,
        min_txid=first.min_txid,
        max_txid=last.max_txid,
        timestamp_ms=last.timestamp_ms,
    )
    return merged.reaching(last.reach) if last.reach > last.max_txid else merged


def merge(
    files: Sequence[Decoder], write: Callable[[bytes], object], *, legacy: bool = False
) -> Merged:
    """Merge ``files``, oldest first, none read yet, into one file; ``legacy`` as `Encoder`.

    Every input is verified to its end. Memory does not grow with the files' sizes, but all of
    them are read at the same time.

    Raises:
        CorruptError: an input is damaged, they do not follow each other, or a merge from TXID 1
            on lacks a page. What was written then is not a file.
        ValueError: no files.
    """
    header = merged_header([file.header for file in files])
    encoder = Encoder(header, write, legacy=legacy)
    pages = 0
    for pgno, page in _complete(header, newest(files)):
        encoder.page(pgno, page)
        pages += 1
    file_checksum = encoder.finish()
    return Merged(header, encoder.size, file_checksum, pages)


def newest(files: Sequence[Decoder]) -> Iterator[tuple[int, bytes]]:
    """The newest version of each page that the files, oldest first, hold; ascending.

    Also pages behind the end of the last file's database. Raises as the files do.
    """
    if len(files) == 1:
        yield from files[0]
        return
    streams = [_ranked(file, rank) for rank, file in enumerate(reversed(files))]
    last = 0
    for pgno, _, page in heapq.merge(*streams):  # number and rank differ: pages never compare
        if pgno != last:
            last = pgno
            yield pgno, page


def _ranked(file: Decoder, rank: int) -> Iterator[tuple[int, int, bytes]]:
    for pgno, page in file:
        yield pgno, rank, page


def _complete(header: Header, pages: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The pages of the database as ``header`` says; a snapshot's are all there."""
    lock, following = lock_page(header.page_size), 1
    for pgno, page in pages:
        if pgno > header.commit:
            continue  # still read to the end: that verifies the files
        if header.is_snapshot and pgno != following:
            raise corrupt(f"page {following} is in none of its files")
        following = pgno + 2 if pgno + 1 == lock else pgno + 1
        yield pgno, page
    if header.is_snapshot and following <= header.commit:
        raise corrupt(f"page {following} is in none of its files")


def _two_page_sizes(first: Header, other: Header) -> CorruptError:
    return corrupt(f"pages of {first.page_size} and of {other.page_size} bytes in one database")
