"""Reading: how far the files of a plan have been read."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]
"""Called with the bytes that were read and those of all files, on the thread that reads."""


def unwatched(done: int, total: int) -> None:
    """For work whose progress nobody wants to know."""


class Reading:
    """Counts the bytes of files that are read one behind the other."""

    def __init__(self, total: int, tell: OnProgress) -> None:
        """``total``: bytes of all files, as their listing has them."""
        self._total = total
        self._tell = tell
        self._done = 0

    def of(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """``read`` of the next file, counted."""

        def counted(count: int) -> bytes:
            data = read(count)
            if data:
                self._done += len(data)
                self._tell(min(self._done, self._total), self._total)
            return data

        return counted
