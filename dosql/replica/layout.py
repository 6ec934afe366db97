"""Layout: where the files of one object's replica are in a bucket.

Litestream has two layouts, one for object stores and one for directories; its restore finds our
files only where it would have put them itself.
"""

from __future__ import annotations

import msgspec

from dosql.replica.plan import file_name, parse_name

LEVELS = (0, 1, 2, 3, 9)
"""The levels that dosql writes."""


class Layout(msgspec.Struct, frozen=True):
    """``prefix`` is the replica's path: neither empty nor ending in a slash."""

    prefix: str
    directory: bool = False
    """Whether the bucket is a directory of the file system."""

    @property
    def link_key(self) -> str:
        """What says that the object began as another; beside the files, where Litestream does not
        look."""
        return f"{self.prefix}/link.json"

    @property
    def root(self) -> str:
        """What the keys of all files start with."""
        return f"{self.prefix}/ltx/" if self.directory else f"{self.prefix}/"

    def place(self, key: str) -> tuple[int, int, int] | None:
        """Level, first and last TXID of a file by its key; None: it is none of this replica's."""
        level, _, _ = key[len(self.root) :].partition("/")
        for each in LEVELS:
            if level == (str(each) if self.directory else f"{each:04x}"):
                span = self.span(each, key)
                return None if span is None else (each, *span)
        return None

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
