"""Build a database file out of LTX files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec

from dosql.pages import lock_page
from dosql.replica.codec import corrupt
from dosql.replica.ltx import Decoder, Header, database_checksum, sequence_fault

_WRITE_BYTES_MAX = 1 << 20


class Image(msgspec.Struct, frozen=True):
    """What a database file holds."""

    txid: int
    timestamp_ms: int
    page_size: int
    page_count: int
    is_ahead: bool = False
    """It is a later state than `txid` says: see `Header.reaching`."""

    @property
    def size_bytes(self) -> int:
        return self.page_count * self.page_size


def write_image(files: Iterable[Decoder], out: BinaryIO, base: Image | None = None) -> Image:
    """Apply ``files``, in the order of their plan, to the database file ``out``.

    ``out`` can be read, written and moved in; it is empty, or holds ``base``, to which the first
    file must then be a successor. It ends as exactly the pages of the state, the lock page
    zeroed. Files are taken one at a time and verified to their end. A checksum of the whole
    database is verified where the last file keeps one. Neither flushed nor synced; whether it is
    a sound database is for SQLite's integrity_check to say.

    Raises:
        CorruptError: ``replica_corrupt``: a file is damaged, or pages are missing;
            ``replica_gap``: the files do not follow each other. ``out`` then holds rubbish.
        ValueError: no files and no base.
    """
    state, checksum = base, 0
    for file in files:
        state = _apply(file, out, state)
        checksum = file.post_apply_checksum
    if state is None:
        raise ValueError("no file to build a database from")
    out.truncate(state.size_bytes)
    _zero_lock_page(out, state)
    if checksum and database_checksum(_pages(out, state)) != checksum:
        raise corrupt("the checksum of the database does not match")
    return state


def _apply(file: Decoder, out: BinaryIO, before: Image | None) -> Image:
    header = file.header
    fault = sequence_fault(before.txid if before else 0, header)
    if fault is not None:
        raise fault
    if before and before.page_size != header.page_size:
        raise corrupt("the page size changed")
    page_count = before.page_count if before and not header.is_snapshot else 0
    grown = 0
    for start, run, pages in _runs(file):
        grown += sum(pgno > page_count for pgno in range(start, start + pages))
        out.seek((start - 1) * header.page_size)
        out.write(run)
    if grown != _real_pages(header, page_count):  # else pages cut off before would come back
        raise corrupt(f"pages between {page_count} and {header.commit} are missing")
    return Image(
        header.max_txid,
        header.timestamp_ms,
        header.page_size,
        header.commit,
        header.reach > header.max_txid,
    )


def _real_pages(header: Header, above: int) -> int:
    """Pages of the database above a number, but for the lock page."""
    lock = above < lock_page(header.page_size) <= header.commit
    return max(0, header.commit - above) - lock


def _runs(file: Decoder) -> Iterator[tuple[int, bytes, int]]:
    """Pages that follow each other, joined: first number, content, count."""
    most = max(1, _WRITE_BYTES_MAX // file.header.page_size)
    start, run = 0, list[bytes]()
    for pgno, page in file:
        if run and (pgno != start + len(run) or len(run) == most):
            yield start, b"".join(run), len(run)
            run = []
        if not run:
            start = pgno
        run.append(page)
    if run:
        yield start, b"".join(run), len(run)


def _zero_lock_page(out: BinaryIO, state: Image) -> None:
    lock = lock_page(state.page_size)
    if lock <= state.page_count:
        out.seek((lock - 1) * state.page_size)
        out.write(bytes(state.page_size))


def _pages(out: BinaryIO, state: Image) -> Iterator[tuple[int, bytes]]:
    out.seek(0)
    for pgno in range(1, state.page_count + 1):
        page = out.read(state.page_size)
        if pgno != lock_page(state.page_size):
            yield pgno, page
