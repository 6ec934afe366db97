"""The commit log of a host in memory, in the test's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dosql.errors import DosqlError
from dosql.log.group_commit import Flush
from dosql.log.records import Drop, ObjectKey, Record


@dataclass(frozen=True, slots=True)
class Image:
    """One committed state of one object."""

    txid: int
    """The batch that it is the outcome of; 0: it never committed."""
    content: bytes


class Source(Protocol):
    """An object with commits: a `MemoryGround`."""

    key: ObjectKey

    def take(self) -> Image | None:
        """All commits until now as the next batch; None if there are none, or it is broken."""
        ...

    def flushed(self, txid: int) -> None:
        """Everything up to batch ``txid`` is durable."""
        ...

    def break_(self, error: DosqlError) -> None:
        """What is not durable is lost."""
        ...


class MemoryLog:
    """What is durable is what `images` has, one per object; a crash leaves nothing else.

    Commits become durable as soon as the event loop is free, in one flush for all objects;
    after `hold` only when the test says so.
    """

    def __init__(self, images: Mapping[ObjectKey, Image] | None = None) -> None:
        self.images: dict[ObjectKey, Image] = dict(images or {})
        self.held = False
        self._dirty: dict[Source, None] = {}
        self._written: dict[Source, int] = {}
        """Whose commits were written, up to which batch, without their having been told."""
        self._records: list[Record] = []
        self._next = Flush()
        self._current: list[Flush] = []
        self._scheduled = False
        self._crashed = False

    # --- for the test -------------------------------------------------------------------------

    def hold(self) -> None:
        """From now on nothing becomes durable by itself."""
        self.held = True

    def release(self) -> None:
        """Make durable what waits; later commits follow by themselves again."""
        self.held = False
        self.flush()

    def flush(self) -> None:
        """Make everything durable that was committed until now, and let go what waits for it."""
        self.write()
        self.acknowledge()

    def write(self) -> None:
        """The first half of `flush`: it would survive a crash, but nobody knows yet."""
        if self._crashed:
            return
        dirty, self._dirty = self._dirty, {}
        records, self._records = self._records, []
        for record in records:
            if isinstance(record, Drop):
                self.images.pop(record.key, None)
        for source in dirty:
            image = source.take()
            if image is not None:
                self.images[source.key] = image
                self._written[source] = image.txid
        self._current.append(self._next)
        self._next = Flush()

    def acknowledge(self) -> None:
        """The second half of `flush`."""
        if self._crashed:
            return
        written, self._written = self._written, {}
        flushes, self._current = self._current, []
        for source, txid in written.items():
            source.flushed(txid)
        for flush in flushes:
            flush.resolve(None)

    def fail(self, error: DosqlError) -> None:
        """The disk fails: every object with commits that are not known to be durable breaks.

        What was written before is durable all the same, as it may be after a failed sync.
        """
        failed = dict.fromkeys([*self._written, *self._dirty])
        flushes = [*self._current, self._next]
        self._written, self._dirty, self._records = {}, {}, []
        self._current, self._next = [], Flush()
        for source in failed:
            source.break_(error)
        for flush in flushes:
            flush.resolve(error)

    def end(self, error: DosqlError | None = None) -> None:
        """Nothing becomes durable any more, as after a power loss. With ``error``, nobody waits
        for that any more either: whoever does gets it."""
        self._crashed = True
        if error is not None:
            flushes = [*self._current, self._next]
            self._current = []
            for flush in flushes:  # the last one stays, for whoever comes now
                flush.resolve(error)

    def crash(self) -> MemoryLog:
        """`end` this log: the one that the next host finds."""
        self.end()
        return MemoryLog(self.images)

    # --- for the host -------------------------------------------------------------------------

    def committed(self, source: Source) -> None:
        """``source`` has commits that are not durable."""
        self._dirty[source] = None
        self._schedule()

    def add(self, record: Record) -> Flush:
        """As `GroupCommit.add`."""
        self._records.append(record)
        self._schedule()
        return self._next

    def _schedule(self) -> None:
        if not (self.held or self._scheduled or self._crashed):
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_if_free)

    def _flush_if_free(self) -> None:
        self._scheduled = False
        if not self.held:
            self.flush()
