"""Prefetch: the files of a plan in order, the small ones fetched side by side ahead of their turn.

A restore of a thousand small files would otherwise take a thousand round trips.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from dosql.replica.plan import FileInfo

_THREADS = 8
_AHEAD = 16
_SMALL_BYTES = 1024 * 1024
"""A larger file is streamed when its turn comes: at most 16 MiB are held."""

Open = Callable[[FileInfo], BinaryIO]


def prefetched(
    files: Sequence[FileInfo], open_: Open
) -> Generator[tuple[FileInfo, BinaryIO], None, None]:
    """Each file with its bytes, which are closed when the next is asked for. To be closed by
    whoever may not read it to its end.

    Raises what ``open_`` raises, when it is the turn of that file.
    """
    if len(files) < 2:
        for each in files:
            with open_(each) as stream:
                yield each, stream
        return

    def fetch(file: FileInfo) -> bytes:
        with open_(file) as stream:
            return stream.read()

    waiting = iter(files)
    ahead: deque[tuple[FileInfo, Future[bytes] | None]] = deque()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="dosql-prefetch")
    try:
        while True:
            while len(ahead) < _AHEAD and (file := next(waiting, None)) is not None:
                small = file.size <= _SMALL_BYTES
                ahead.append((file, pool.submit(fetch, file) if small else None))
            if not ahead:
                return
            file, coming = ahead.popleft()
            with open_(file) if coming is None else io.BytesIO(coming.result()) as stream:
                yield file, stream
    finally:
        pool.shutdown(cancel_futures=True)
