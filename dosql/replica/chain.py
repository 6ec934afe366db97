"""Chain: what a restore of an object's newest state would read, as far as it is known.

It is a *base*, which holds the whole database, and behind it files that are each the successor of
the one before. Compaction replaces runs of them by one file, and a snapshot moves the base. Who
only saw the newest files go by has a chain without a base: enough to merge.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dosql.limits import SNAPSHOT_AFTER_BYTES_MIN, SNAPSHOT_FILE_BYTES
from dosql.replica.plan import LEVEL_SPAN_MS, RAW_LEVEL, SNAPSHOT_LEVEL, FileInfo, restore_plan
from dosql.replica.replica import Replica

MERGED_LEVELS = tuple(sorted(LEVEL_SPAN_MS))
"""Those of files that compaction writes, but for snapshots."""


class Chain(msgspec.Struct):
    """Of one object. Its files, but for the base, have a timestamp."""

    base: FileInfo | None = None
    files: list[FileInfo] = msgspec.field(default_factory=list[FileInfo])
    database_bytes: int = 0
    """Size of the database after `sized_txid`; 0: not known."""
    sized_txid: int = 0
    undated: set[FileInfo] = msgspec.field(default_factory=set[FileInfo])
    """Files whose timestamp is that at which they were stored: later than their last commit."""

    @property
    def end(self) -> int:
        """The newest TXID; 0: nothing is known."""
        if self.files:
            return self.files[-1].max_txid
        return self.base.max_txid if self.base else 0

    def add(self, file: FileInfo) -> None:
        """The bucket took this file of the raw level. One that does not follow what is known
        begins a new chain."""
        if file.min_txid == 1:
            self.base, self.files = file, []
        elif not self.end or file.min_txid == self.end + 1:
            self.files.append(file)
        elif file.max_txid > self.end:
            self.base, self.files = None, [file]

    def sized(self, txid: int, database_bytes: int) -> None:
        """A merge found the size of the database after ``txid``."""
        if txid > self.sized_txid:
            self.sized_txid, self.database_bytes = txid, database_bytes

    def runs(self, level: int, until_ms: int) -> list[slice]:
        """The runs that make one file of ``level`` each, of spans of time that have ended at
        ``until_ms``, the last one first.

        A file alone is not merged: that would only copy it. A larger span will take it in.
        """
        return [run for run, end_ms in self._runs(level) if end_ms <= until_ms][::-1]

    def next_end_ms(self, until_ms: int) -> int | None:
        """When the next span ends that has a run; None: without new files, none will."""
        ends = (end_ms for level in MERGED_LEVELS for _, end_ms in self._runs(level))
        return min((end_ms for end_ms in ends if end_ms > until_ms), default=None)

    def _runs(self, level: int) -> Iterator[tuple[slice, int]]:
        files, start = self.files, 0
        while start < len(files):
            end_ms = span_end_ms(files[start], level)
            stop = start
            while (
                stop < len(files)
                and files[stop].level < level
                and span_end_ms(files[stop], level) == end_ms
            ):
                stop += 1
            if stop - start > 1:
                yield slice(start, stop), end_ms
            start = max(stop, start + 1)

    def settled(self, until_ms: int) -> int:
        """How many files, from the first one, lie in spans of level 1 that have ended."""
        count = 0
        while count < len(self.files) and span_end_ms(self.files[count], 1) <= until_ms:
            count += 1
        return count

    def wants_snapshot(self, count: int) -> bool:
        """Whether a restore of the base and the first ``count`` files reads so much more than the
        database that it is time for a snapshot of them."""
        if self.base is None or not count:
            return False
        size, now = self.base.size, self.database_bytes or self.base.size
        least = SNAPSHOT_AFTER_BYTES_MIN
        return weight(self.files[:count]) > max(least, min(size, now)) or size > now + least


def span_end_ms(file: FileInfo, level: int) -> int:
    """When the span of time ends that the file belongs to."""
    assert file.timestamp_ms is not None
    span_ms = LEVEL_SPAN_MS[level]
    return (file.timestamp_ms // span_ms + 1) * span_ms


def weight(files: list[FileInfo]) -> int:
    """What the files cost a restore, in bytes."""
    return sum(file.size + SNAPSHOT_FILE_BYTES for file in files)


def look(replica: Replica) -> Chain:
    """Find out, by listing what is newer than the newest snapshot.

    Raises:
        NotFoundError: ``restore_point_not_found``: there is no replica.
        CorruptError: ``replica_gap``: its newest state cannot be restored.
    """
    snapshots = [each for each in replica.listing(SNAPSHOT_LEVEL) if each.min_txid == 1]
    files = [max(snapshots, key=lambda each: each.max_txid)] if snapshots else []
    newest = files[0].max_txid if files else 0
    for level in (RAW_LEVEL, *MERGED_LEVELS):
        files += replica.listing(level, from_txid=newest + 1)
    if not _reaches_all(files):  # a file that begins before the snapshot is needed
        files = replica.dated()
    plan = restore_plan(files)
    return Chain(base=plan[0], files=plan[1:], undated=set(plan[1:]))


def _reaches_all(files: list[FileInfo]) -> bool:
    reached = 0
    for file in sorted(files, key=lambda each: each.min_txid):
        if file.min_txid > reached + 1:
            return False
        reached = max(reached, file.max_txid)
    return True
