"""PageSet: the pages that one commit batch changed, each in its newest version."""

from __future__ import annotations

import msgspec


class PageSet(msgspec.Struct, frozen=True):
    """Applying it to the database file of the state before gives the state after.

    To apply: write every page at ``(pgno - 1) * page_size``, then cut or extend the file to
    ``commit * page_size`` bytes.
    """

    page_size: int
    """Bytes per page: a power of two, 512 to 65536."""
    commit: int
    """Size of the database after the batch, in pages."""
    pages: dict[int, bytes]
    """Page number (from 1) to content; ascending, none above ``commit``."""

    @property
    def size_bytes(self) -> int:
        """Bytes of page content."""
        return len(self.pages) * self.page_size

    def filled(self, page_count_before: int) -> PageSet:
        """The same, with zeros for pages that the database grew by and nobody wrote: a chain of
        files that lacks them cannot be restored. ``page_count_before``: 0 where the whole
        database is meant."""
        lock = lock_page(self.page_size)
        missing = [
            pgno
            for pgno in range(page_count_before + 1, self.commit + 1)
            if pgno not in self.pages and pgno != lock
        ]
        if not missing and lock not in self.pages:
            return self
        every = self.pages | dict.fromkeys(missing, bytes(self.page_size))
        every.pop(lock, None)
        return PageSet(self.page_size, self.commit, dict(sorted(every.items())))


def lock_page(page_size: int) -> int:
    """The page at offset 1 GiB that SQLite never uses: never in a file, zeros in a database."""
    return 0x4000_0000 // page_size + 1
