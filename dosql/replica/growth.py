"""No holes in what a batch adds to the end of a database."""

from __future__ import annotations

from dosql.pages import PageSet
from dosql.replica.ltx import lock_page


def filled(pages: PageSet, page_count_before: int) -> PageSet:
    """The same pages, and zeros for those that the database grew by and nobody wrote.

    SQLite need not write a page that a transaction added and freed again, but a chain of files
    without it cannot be restored. ``page_count_before``: 0 where the whole database is meant.
    """
    lock = lock_page(pages.page_size)
    missing = [
        pgno
        for pgno in range(page_count_before + 1, pages.commit + 1)
        if pgno not in pages.pages and pgno != lock
    ]
    if not missing and lock not in pages.pages:
        return pages
    every = pages.pages | dict.fromkeys(missing, bytes(pages.page_size))
    every.pop(lock, None)
    return PageSet(pages.page_size, pages.commit, dict(sorted(every.items())))
