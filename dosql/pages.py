"""PageSet: the pages that one commit batch changed, each in its newest version."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageSet:
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
