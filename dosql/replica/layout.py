"""Layout: where the files of one object's replica are in a bucket.

Litestream has two layouts, one for object stores and one for directories; its restore finds our
files only where it would have put them itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from dosql.replica.plan import file_name, parse_name

LEVELS = (0, 1, 2, 3, 9)
"""The levels that dosql writes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """``prefix`` is the replica's path: neither empty nor ending in a slash."""

    prefix: str
    directory: bool = False
    """Whether the bucket is a directory of the file system."""

    @property
    def link_key(self) -> str:
        """What says that the object began as another; beside the files, where Litestream does not
        look."""
        return f"{self.prefix}/link.json"

    def level_prefix(self, level: int) -> str:
        """What the keys of one level start with."""
        if self.directory:
            return f"{self.prefix}/ltx/{level}/"
        return f"{self.prefix}/{level:04x}/"

    def key(self, level: int, min_txid: int, max_txid: int) -> str:
        """The key of one file."""
        return self.level_prefix(level) + file_name(min_txid, max_txid)

    def span(self, level: int, key: str) -> tuple[int, int] | None:
        """First and last TXID of a file by its key; None: it is no file of this level."""
        start = self.level_prefix(level)
        return parse_name(key[len(start) :]) if key.startswith(start) else None
