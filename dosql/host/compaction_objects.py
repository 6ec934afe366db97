"""What compaction keeps in mind of the objects that were written lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from dosql.limits import (
    COMPACTION_GRACE_MS,
    COMPACTION_OBJECTS_MAX,
    REPLICA_LOOK_BYTES,
    REPLICA_LOOK_TXIDS,
    SWEEP_AFTER_MS,
    SWEEP_BYTES_MIN,
    SWEEP_FILES_MIN,
    SWEEP_PERIOD_MS,
)
from dosql.log.records import ObjectKey
from dosql.replica.chain import MERGED_LEVELS, Chain, span_end_ms
from dosql.replica.compactor import Tally
from dosql.replica.plan import FileInfo


class Written(msgspec.Struct):
    """An object that was written lately."""

    chain: Chain = msgspec.field(default_factory=Chain)
    arrived: list[FileInfo] = msgspec.field(default_factory=list[FileInfo])
    """Not yet in the chain, which a thread may be working on."""
    due_ms: int = 0
    """When something is to be done; 0: it is being done."""
    wants_look: bool = False
    """If the chain has no base, it is time to find out."""
    failures: int = 0
    _unseen_bytes: int = 0

    def arrive(self, file: FileInfo) -> bool:
        """The bucket took this file of the raw level; whether the object is due earlier now."""
        self.arrived.append(file)
        self._unseen_bytes += file.size
        if (
            file.max_txid // REPLICA_LOOK_TXIDS != (file.min_txid - 1) // REPLICA_LOOK_TXIDS
            or self._unseen_bytes >= REPLICA_LOOK_BYTES
        ):
            self.wants_look = True
        due_ms = span_end_ms(file, 1) + COMPACTION_GRACE_MS
        if self.due_ms and self.due_ms <= due_ms:
            return False
        self.due_ms = due_ms
        return True

    def take(self) -> bool:
        """Work begins: the chain gets what has arrived. Whether it is to be looked up instead."""
        self.due_ms = 0
        for file in self.arrived:
            self.chain.add(file)
        self.arrived.clear()
        look = self.wants_look and self.chain.base is None
        self.wants_look, self._unseen_bytes = False, 0
        return look

    def done(self, end_ms: int | None, now_ms: int) -> bool:
        """Work has ended, and `Chain.next_end_ms` is ``end_ms``. False: there is nothing to wait
        for any more."""
        self.failures = 0
        ends = [span_end_ms(file, 1) for file in self.arrived[:1]]
        if end_ms is not None:
            ends.append(end_ms)
        if not ends and self.chain.files:
            last_ms = span_end_ms(self.chain.files[-1], MERGED_LEVELS[-1])
            ends += [last_ms] if last_ms + COMPACTION_GRACE_MS > now_ms else []
        if ends:
            self.due_ms = min(ends) + COMPACTION_GRACE_MS
        return bool(ends)


class WrittenObjects:
    """The latest of them."""

    def __init__(self) -> None:
        self._objects: OrderedDict[ObjectKey, Written] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[ObjectKey]:
        return iter(self._objects)

    def find(self, key: ObjectKey) -> Written | None:
        """What is known of the object."""
        return self._objects.get(key)

    def now(self, key: ObjectKey) -> Written:
        """The object is written now."""
        entry = self._objects.get(key)
        if entry is None:
            entry = self._objects[key] = Written()
            while len(self._objects) > COMPACTION_OBJECTS_MAX:
                self._objects.popitem(last=False)
        else:
            self._objects.move_to_end(key)
        return entry

    def remove(self, key: ObjectKey) -> None:
        """Nothing is to be done for the object."""
        self._objects.pop(key, None)


class Debt(msgspec.Struct):
    """What has become superfluous of an object's files, until a sweep removes it."""

    files: int = 0
    bytes: int = 0
    last_ms: int = 0
    """When the last merge was."""
    due_ms: int = 0
    """When the sweep is; 0: it is not worth one yet."""
    _latest_ms: int = 0
    """When the sweep is at the latest, whatever is merged meanwhile."""

    def add(self, tally: Tally, looked: bool, now_ms: int, commits_ms: int) -> bool:
        """More was merged, or the object was looked at, as those are now and then that have little
        to merge. Whether a sweep has become worth while by it."""
        self.files += tally.inputs
        self.bytes += tally.input_bytes
        self.last_ms = now_ms
        worth = looked or self.files >= SWEEP_FILES_MIN or self.bytes >= SWEEP_BYTES_MIN
        if self.due_ms or not worth:
            return False
        self._plan(commits_ms)
        return True

    def postponed(self, now_ms: int, commits_ms: int) -> bool:
        """Whether the sweep, which is due, had better wait for what was merged since: `due_ms` says
        until when."""
        wanted_ms = min(self._latest_ms, self.last_ms + commits_ms + SWEEP_AFTER_MS)
        if wanted_ms <= now_ms:
            return False
        self.due_ms = wanted_ms
        return True

    def swept(self, now_ms: int, commits_ms: int) -> bool:
        """All that had expired was removed. Whether more will, and when."""
        self._plan(commits_ms)
        return self.due_ms > now_ms

    def _plan(self, commits_ms: int) -> None:
        """``commits_ms``: the age at which merged commits expire."""
        self.due_ms = self.last_ms + commits_ms + SWEEP_AFTER_MS
        self._latest_ms = self.due_ms + SWEEP_PERIOD_MS
