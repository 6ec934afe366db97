"""NodeLog: the one append-only log that makes the commits of all objects of a node durable.

Invariants:
- `append` returns only when its records survive a power loss. One sync covers all of them.
- Groups are written strictly one after the other, so an intact group proves that every group
  before it was durable. What follows the last intact group was never acknowledged: it is torn and
  dropped. An intact group *behind* a broken one is damage, and reported as such.
- A failed write or sync is never repeated on the same file: its segment is closed where the last
  acknowledged group ends, and the next group goes to a new file.
- A segment goes away only when every object with a batch in it has said, by `checkpointed`, that
  its own file holds that batch durably.

The log knows keys, page numbers and bytes; not SQLite, names or the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from dosql.clock import Randomness
from dosql.limits import LOG_SEGMENT_BYTES
from dosql.log.disk import Disk, DiskFile
from dosql.log.records import Batch, Found, ObjectKey, Record, encode_group
from dosql.log.segment_reader import Group, SegmentReader
from dosql.log.segments import Manifest, Segment, SegmentFiles


class CommitLog(Protocol):
    """The seam: what a commit needs from a log. `NodeLog` is the durability mode ``local``."""

    def append(self, records: Sequence[Record]) -> None:
        """Return when the records are durable; LogWriteError if they are not."""
        ...


class LogWriteError(Exception):
    """The records did not become durable.

    ``settled`` says that they never will: a later start does not find them. Otherwise the
    outcome is unknown.
    """

    def __init__(self, cause: Exception, *, settled: bool) -> None:
        super().__init__(str(cause))
        self.errno = cause.errno if isinstance(cause, OSError) else None
        self.settled = settled


class NodeLog:
    """The log in one directory. `append` may be called from one thread at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        randomness: Randomness,
        segment_bytes: int = LOG_SEGMENT_BYTES,
    ) -> None:
        """Open the log, or make a new one.

        Raises:
            CorruptError: ``log_damaged``: a file is missing or a manifest is not intact.
        """
        self._files = SegmentFiles(directory, disk, segment_bytes)
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._file: DiskFile | None = None
        self._offset = 0
        self._failed = False
        self._in_log: dict[ObjectKey, tuple[int, int]] = {}
        """Key to (first segment needed, newest txid), for every object the log still covers."""
        self.before_cut: Callable[[], None] = lambda: None
        """Called before records are forgotten, all of which were said to be appended: for what
        still depends on them. What it raises keeps them."""
        self.groups = 0
        """Groups made durable since the start: one sync each."""
        manifest = self._files.read_manifest()
        self.is_new = manifest is None
        if manifest is None:
            log_id = int.from_bytes(randomness.token_bytes(8), "little")
            self._manifest = Manifest(log_id, ())
            self._sequence = 1
            self._roll()
        else:
            self._manifest = manifest
            self._sequence = manifest.segments[-1].first_sequence

    @property
    def size_bytes(self) -> int:
        """Bytes that a redo would read."""
        return self._offset + sum(segment.end or 0 for segment in self._manifest.segments)

    @property
    def failed(self) -> bool:
        """Whether the newest group failed and no new file could be started since."""
        return self._failed

    # --- reading ------------------------------------------------------------------------------

    def replay(self) -> Iterator[Found]:
        """`history` without the numbers of the groups."""
        return (record for _, record in self.history())

    def history(self) -> Iterator[tuple[int, Found]]:
        """Every record in the order it was appended, with the number of its group; afterwards
        the log can be appended to.

        A record is durable when it is handed out: only then may it change another file.

        Raises:
            CorruptError: ``log_damaged``: a durable group cannot be read.
        """
        end = 0
        sequence = self._sequence
        for segment in self._manifest.segments:
            file = self._files.open(segment)
            try:
                end, sequence = 0, segment.first_sequence
                newest: Group | None = None
                for group in self._groups(file, segment, segment.end):
                    if newest is not None:  # durable, because another one follows
                        yield from newest.numbered()
                        end = newest.end
                    newest, sequence = group, group.sequence + 1
                if newest is not None:
                    if segment.end is None:
                        _write_again(file, end, newest.end)
                    yield from newest.numbered()
                    end = newest.end
            finally:
                file.close()
        self._sequence = sequence
        self._roll(end)

    def batches(self, key: ObjectKey, after_txid: int, since: int = 0) -> list[Batch]:
        """The durable batches of one object behind ``after_txid``, in order, from those in group
        ``since`` on. Blocks appends."""
        found: list[Batch] = []
        with self._lock:
            active = self._manifest.segments[-1].number
            first_needed, _ = self._in_log.get(key, (active + 1, 0))
            for segment in self._manifest.segments:
                if segment.number < first_needed:
                    continue
                end = self._offset if segment.end is None else segment.end
                file = self._files.open(segment)
                try:
                    for group in self._groups(file, segment, end):
                        if group.sequence < since:
                            continue
                        for record in group.records:
                            if isinstance(record, Batch) and record.key == key:
                                found.append(record)
                finally:
                    file.close()
        return [batch for batch in found if batch.txid > after_txid]

    def _groups(self, file: DiskFile, segment: Segment, end: int | None) -> Iterator[Group]:
        return SegmentReader(file, segment, self._manifest.log_id).groups(end)

    # --- writing ------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> None:
        """Return when all records are durable: after one sync.

        Raises:
            LogWriteError: they are not; see its ``settled``.
        """
        with self._lock:
            written = False
            try:
                if self._failed:
                    self._roll(self._offset)
                data = encode_group(self._sequence, self._manifest.log_id, records)
                if self._offset and self._offset + len(data) > self._segment_bytes:
                    self._roll(self._offset)
                file = self._file
                assert file is not None, "replay() comes before the first append()"
                written = True
                file.pwrite(data, self._offset)
                file.sync()
            except Exception as error:
                settled = self._abandon() or not written
                raise LogWriteError(error, settled=settled) from error
            self._offset += len(data)
            self._sequence += 1
            self.groups += 1
            self._remember(records)

    def _remember(self, records: Sequence[Record]) -> None:
        number = self._manifest.segments[-1].number
        for record in records:
            if isinstance(record, Batch):
                first, _ = self._in_log.get(record.key, (number, 0))
                self._in_log[record.key] = (first, record.txid)
            else:
                self._in_log.pop(record.key, None)

    def _abandon(self) -> bool:
        """Close the segment at the last durable group. False if that was not possible either."""
        self._failed = True
        self._sequence += 1  # the failed group's number must not appear twice
        try:
            self._roll(self._offset)
        except OSError:
            return False
        return True

    def _roll(self, end: int | None = None) -> None:
        """Close the active segment at ``end`` and start the next one."""
        segments = self._manifest.segments
        if segments and end is not None:
            segments = (*segments[:-1], _closed(segments[-1], end))
        number = segments[-1].number + 1 if segments else 1
        fresh = Segment(number, self._sequence)
        file = self._files.create(fresh)
        manifest = Manifest(self._manifest.log_id, (*segments, fresh))
        try:
            self._files.write_manifest(manifest)
        except OSError:
            self._failed = True  # the manifest on disk may be the new one: nothing goes behind it
            file.close()
            raise
        if self._file is not None:
            self._file.close()
        self._file, self._offset, self._manifest, self._failed = file, 0, manifest, False

    # --- cutting ------------------------------------------------------------------------------

    def oldest_keys(self) -> list[ObjectKey]:
        """The objects that keep the oldest segment in the log."""
        with self._lock:
            oldest = min((first for first, _ in self._in_log.values()), default=0)
            return [key for key, (first, _) in self._in_log.items() if first == oldest]

    def next_sequence(self) -> int:
        """The number of the group that is appended next."""
        with self._lock:
            return self._sequence

    def position(self) -> int:
        """The active segment's number: where whatever is appended from now on goes, at least."""
        return self._manifest.segments[-1].number

    def checkpointed(self, key: ObjectKey, txid: int, position: int) -> None:
        """The object's file durably holds all up to ``txid``; later batches: from ``position``."""
        with self._lock:
            first, newest = self._in_log.get(key, (0, 0))
            if newest > txid:
                self._in_log[key] = (max(first, position), newest)
            else:
                self._in_log.pop(key, None)

    def cut(self, *, keep_aside: bool = False) -> None:
        """Drop the segments that no object needs any more."""
        with self._lock:
            active = self._manifest.segments[-1]
            needed = min((first for first, _ in self._in_log.values()), default=active.number)
            old = [each for each in self._manifest.segments[:-1] if each.number < needed]
            if not old:
                return
            self.before_cut()
            kept = tuple(each for each in self._manifest.segments if each.number >= needed)
            manifest = Manifest(self._manifest.log_id, kept)
            self._files.write_manifest(manifest)
            self._manifest = manifest
            for segment in old:
                if keep_aside:
                    self._files.keep_aside(segment)
                else:
                    self._files.retire(segment)

    def cut_all(self, *, keep_aside: bool = False) -> None:
        """Every object's file is durable: start over with an empty segment.

        With ``keep_aside`` the old segments stay on disk, renamed, for an operator to look at.
        """
        with self._lock:
            self._in_log.clear()
            if self._offset:
                self._roll(self._offset)
            self.cut(keep_aside=keep_aside)

    def prepare_spare(self) -> None:
        """Have the next segment ready; slow, and best done when nobody waits."""
        self._files.prepare_spare()

    def close(self) -> None:
        """Give the descriptor back; what was appended is durable already."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _closed(segment: Segment, end: int) -> Segment:
    return Segment(segment.number, segment.first_sequence, end)


def _write_again(file: DiskFile, start: int, end: int) -> None:
    """Make the newest group durable: its writer may have been killed before its sync, or the
    sync may have failed, after which a second one without a new write would prove nothing."""
    file.pwrite(file.pread(end - start, start), start)
    file.sync()
