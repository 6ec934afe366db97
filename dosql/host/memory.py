"""Memory that sleeping objects leave behind goes back to the operating system.

An awake object costs about 200 KB, mostly SQLite's page cache, in small pieces. After it has gone
to sleep the C library keeps those pieces for later: a thousand objects that were awake at once
would cost 160 MB for ever. Only glibc is known to do so, and only it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache


def return_free_memory() -> None:
    """Give back what is free. Call it on a worker thread: it takes milliseconds."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    import ctypes  # only now: a start would wait for it, and few nodes ever trim

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    found: Callable[[int], int] = trim
    return found
