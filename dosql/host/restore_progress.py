"""RestoreProgress: how much of a state has been read, as whoever waits for it is told."""

from __future__ import annotations

from dosql.replica.reading import OnProgress


class RestoreProgress:
    """Told are 0, then ever more, and in the end all bytes of the state: also where a damaged file
    makes the reading begin anew, and where merging has replaced the files that were counted."""

    def __init__(self, total: int, tell: OnProgress) -> None:
        self._total = total
        self._tell = tell
        self._told = 0
        tell(0, total)

    def __call__(self, done: int, total: int) -> None:
        """So much of the files that are being read now."""
        share = self._total * done // total
        if share > self._told:
            self._told = share
            self._tell(share, self._total)
