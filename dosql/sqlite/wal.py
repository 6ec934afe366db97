"""Read committed pages out of a ``-wal`` file (format: sqlite.org/fileformat2.html, section 4).

The caller knows from the WAL hook how many frames are committed; positions alone are safe because
only the host checkpoints, and never while frames are unread, so the file does not start over
under the reader.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from dosql.errors import CorruptError
from dosql.pages import PageSet

_HEADER_BYTES = 32
_FRAME = struct.Struct(">II8s")
_FRAME_HEADER_BYTES = 24


class WalReader:
    """One object's ``-wal`` file, opened when first read, to be read from its start on."""

    def __init__(self, database: Path, page_size: int) -> None:
        self._page_count = database.stat().st_size // page_size
        """Of the database after all that was read."""
        self._read = 0
        self._path = database.with_name(database.name + "-wal")
        self._page_size = page_size
        self._fd: int | None = None

    def read(self, start: int, end: int) -> PageSet:
        """The pages in frames ``start`` (from 0) up to, not including, ``end``.

        ``end`` follows a commit. Pages that the commit cut off are left out. A page that the
        database grew by and that is in no frame is zeros: SQLite was never seen to leave one out,
        but it need not write what a transaction added and freed again.

        Raises:
            CorruptError: the frames are not what SQLite said it committed.
        """
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        frame_bytes = _FRAME_HEADER_BYTES + self._page_size
        salts = os.pread(self._fd, 8, 16)
        wanted = (end - start) * frame_bytes
        data = os.pread(self._fd, wanted, _HEADER_BYTES + start * frame_bytes)
        while 0 < len(data) < wanted:  # the system reads at most 2 GiB at a time
            more = os.pread(
                self._fd, wanted - len(data), _HEADER_BYTES + start * frame_bytes + len(data)
            )
            if not more:
                break
            data += more
        if len(data) != wanted:
            raise CorruptError("The write-ahead log is shorter than what was committed.")
        newest: dict[int, int] = {}
        commit, least = 0, self._page_count
        for at in range(0, wanted, frame_bytes):
            pgno, commit, frame_salts = _FRAME.unpack_from(data, at)
            if frame_salts != salts:
                raise CorruptError("The write-ahead log does not hold what was committed.")
            newest[pgno] = at + _FRAME_HEADER_BYTES
            if commit and commit < least:
                least = commit
        if not commit:
            raise CorruptError("The write-ahead log ends inside a transaction.")
        size = self._page_size
        pages = {
            pgno: data[newest[pgno] : newest[pgno] + size]
            for pgno in sorted(newest)
            if pgno <= commit
        }
        follows = start in (0, self._read)
        self._read, self._page_count = end, commit
        found = PageSet(size, commit, pages)
        return found.filled(least) if follows and commit > least else found

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
