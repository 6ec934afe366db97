"""WalTail: the end of an object's ``-wal`` that the commit log does not have yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dosql.pages import PageSet
from dosql.sqlite.database import Database
from dosql.sqlite.wal import WalReader


class WalTail:
    """At a wake the WAL is empty, but for what the migrations committed."""

    def __init__(self, path: Path, db: Database) -> None:
        self._db = db
        self._reader = WalReader(path, db.page_size)
        self._taken = 0
        self._seen = 0

    @property
    def is_empty(self) -> bool:
        """Whether everything that is committed was taken."""
        return self._db.wal_frames == self._taken

    def has_grown(self) -> bool:
        """Whether something was committed since the last time that this was asked."""
        before, self._seen = self._seen, self._db.wal_frames
        return self._seen != before

    def take(self) -> Callable[[], PageSet]:
        """All of it; the call that reads it may be made on another thread."""
        start, end = self._taken, self._db.wal_frames
        self._taken = end
        return lambda: self._reader.read(start, end)

    def checkpointed(self) -> None:
        """The WAL went into the file."""
        self._taken = self._seen = self._db.wal_frames

    def close(self) -> None:
        """Nothing is read any more."""
        self._reader.close()
