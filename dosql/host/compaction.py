"""Compaction: when the files of which object are merged, and which of them are removed.

One timer for the whole node, driven by what the bucket took. An object is due when a span of time
has ended in which it was written; when nothing more can come of what it wrote, it is forgotten and
causes no request any more, but for one sweep when much of what was merged has expired.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from dosql.clock import Clock, Timers
from dosql.errors import CorruptError, DosqlError, NotFoundError
from dosql.host.compaction_objects import Debt, Written, WrittenObjects
from dosql.host.due_times import DueTimes
from dosql.limits import (
    COMPACTION_GRACE_MS,
    COMPACTION_PAUSE_S,
    COMPACTIONS_MAX,
)
from dosql.log.records import ObjectKey
from dosql.replica.chain import MERGED_LEVELS, Chain, look
from dosql.replica.compactor import Compactor, Stopped, Tally
from dosql.replica.plan import FileInfo
from dosql.replica.replica import Replica
from dosql.replica.retention import Needed, RetentionSettings, expired, sweep

T = TypeVar("T")
_log = logging.getLogger("dosql.host")
_AGAIN_MS = 1_000
"""When to look again whether work on an object that is due once more has ended."""
_PAUSE_MS = round(COMPACTION_PAUSE_S * 1000)


class Ground(Protocol):
    """What compaction needs of the shipper."""

    def replica(self, key: ObjectKey) -> Replica:
        """The object's files."""
        ...

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work on a thread for bucket requests."""
        ...

    def is_stalled(self) -> bool:
        """Whether the bucket does not answer just now."""
        ...


class CompactionStatistics(msgspec.Struct):
    """Counts since the start."""

    compactions: int = 0
    """Merged files written, but for snapshots."""
    snapshots: int = 0
    files_deleted: int = 0
    failures: int = 0


class _Run:
    """Work on one object, on a thread."""

    def __init__(self) -> None:
        self.cancelled = False
        self.dropped = False


class Compaction:
    """Belongs to the event loop."""

    def __init__(
        self,
        ground: Ground,
        *,
        scratch: Path,
        clock: Clock,
        timers: Timers,
        retention: RetentionSettings,
    ) -> None:
        self.statistics = CompactionStatistics()
        self.protected: Callable[[ObjectKey], Needed] = lambda key: None
        """Which states of the object others depend on; asked on a thread."""
        self.removing = asyncio.Lock()
        """Held while files are chosen and removed: two who did so at once could each rely on what
        the other removes."""
        self._ground = ground
        self._scratch = scratch
        self._clock = clock
        self._retention = retention
        self._objects = WrittenObjects()
        self._debts: dict[ObjectKey, Debt] = {}
        self._due = DueTimes(clock, timers, self._fire)
        self._ready: deque[ObjectKey] = deque()
        self._queued: set[ObjectKey] = set()
        self._runs: dict[ObjectKey, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    # --- what happens to objects --------------------------------------------------------------

    def shipped(self, key: ObjectKey, file: FileInfo) -> None:
        """The bucket took this file of the raw level."""
        if self._closing:
            return
        entry = self._objects.now(key)
        if entry.arrive(file):
            self._due.add(entry.due_ms, key)

    def forget(self, key: ObjectKey) -> None:
        """The object is not ours any more: nothing is written or removed for it from now on."""
        self._objects.remove(key)
        self._debts.pop(key, None)
        run = self._runs.get(key)
        if run is not None:
            run.cancelled = True

    def dropped(self, key: ObjectKey) -> None:
        """The object has ceased to exist, and its files are being removed."""
        self.forget(key)
        run = self._runs.get(key)
        if run is not None:
            run.dropped = True

    async def sweep(self, key: ObjectKey, *, dry_run: bool = False) -> list[FileInfo]:
        """Remove now what has expired of the object's files, or only tell what that is."""
        replica, protected = self._ground.replica(key), partial(self.protected, key)
        now_ms, retention = self._clock.now_ms(), self._retention

        def work() -> list[FileInfo]:
            if dry_run:
                return expired(replica.dated(), now_ms, retention, protected())
            return sweep(replica, now_ms, retention, protected)

        async with self.removing:
            gone = await self._ground.on_thread(work)
        self.statistics.files_deleted += 0 if dry_run else len(gone)
        return gone

    @property
    def known(self) -> int:
        """How many objects are kept in mind."""
        return len({*self._objects, *self._debts})

    async def settled(self) -> None:
        """Return when nothing runs; for tests."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Stop. What was merged so far is kept; the rest is merged when the object is written
        again."""
        self._closing = True
        self._due.stop()
        for run in self._runs.values():
            run.cancelled = True
        await self.settled()

    # --- when ---------------------------------------------------------------------------------

    def _fire(self) -> None:
        if self._ground.is_stalled():
            self._due.pause(_PAUSE_MS)
        now_ms = self._clock.now_ms()
        for key in self._due.take():
            if key in self._runs:
                self._due.add(now_ms + _AGAIN_MS, key)
            elif key not in self._queued and self._is_due(key, now_ms):
                self._queued.add(key)
                self._ready.append(key)
        self._start()

    def _is_due(self, key: ObjectKey, now_ms: int) -> bool:
        entry, debt = self._objects.find(key), self._debts.get(key)
        return (entry is not None and 0 < entry.due_ms <= now_ms) or (
            debt is not None and 0 < debt.due_ms <= now_ms
        )

    def _start(self) -> None:
        for _ in range(min(len(self._ready), COMPACTIONS_MAX - len(self._tasks))):
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start()

    async def _work(self) -> None:
        """Take what is ready, one object after the other."""
        while self._ready and not self._closing:
            key = self._ready.popleft()
            self._queued.discard(key)
            run = self._runs[key] = _Run()
            try:
                await self._attempt(key, run)
            finally:
                del self._runs[key]
            if run.dropped:
                await self._quietly(self._ground.replica(key).remove)

    # --- what ---------------------------------------------------------------------------------

    async def _attempt(self, key: ObjectKey, run: _Run) -> None:
        now_ms = self._clock.now_ms()
        entry = self._objects.find(key)
        try:
            if entry is not None and 0 < entry.due_ms <= now_ms:
                await self._compact(key, entry, run, now_ms)
            debt = self._debts.get(key)
            if debt is not None and 0 < debt.due_ms <= now_ms and not run.cancelled:
                await self._sweep(key, debt, now_ms)
        except Stopped:
            pass
        except (CorruptError, NotFoundError) as error:
            self._broken(key, entry, error)
        except (DosqlError, OSError) as error:
            _log.warning("compaction pauses: %s", error)
            self._later(key, now_ms)
        except Exception:
            _log.exception("object %s is not compacted", key.id.hex())
            self.statistics.failures += 1
            self._objects.remove(key)
            self._debts.pop(key, None)

    async def _compact(self, key: ObjectKey, entry: Written, run: _Run, now_ms: int) -> None:
        wants_look = entry.take()
        until_ms = now_ms - COMPACTION_GRACE_MS
        compactor = Compactor(
            self._scratch, is_stopped=lambda: run.cancelled or run.dropped or self._closing
        )
        replica = self._ground.replica(key)

        def work() -> int | None:
            chain = look(replica) if wants_look else entry.chain
            entry.chain = chain
            for level in MERGED_LEVELS:
                compactor.compact(replica, chain, level, until_ms)
            compactor.snapshot(replica, chain, until_ms)
            return chain.next_end_ms(until_ms)

        try:
            end_ms = await self._ground.on_thread(work)
        finally:
            self._count(key, compactor.tally, wants_look, now_ms)
        if self._objects.find(key) is not entry:
            return
        if entry.done(end_ms, now_ms):
            self._due.add(entry.due_ms, key)
        else:
            self._objects.remove(key)
            debt = self._debts.get(key)
            if debt is not None and not debt.due_ms:
                del self._debts[key]

    async def _sweep(self, key: ObjectKey, debt: Debt, now_ms: int) -> None:
        if debt.postponed(now_ms, self._retention.commits_ms):
            self._due.add(debt.due_ms, key)
            return
        await self.sweep(key)
        if self._debts.get(key) is not debt:
            return
        if debt.swept(now_ms, self._retention.commits_ms):
            self._due.add(debt.due_ms, key)
        else:
            del self._debts[key]

    def _count(self, key: ObjectKey, tally: Tally, looked: bool, now_ms: int) -> None:
        self.statistics.compactions += tally.compactions
        self.statistics.snapshots += tally.snapshots
        if (tally.inputs or looked) and self._objects.find(key) is not None:
            debt = self._debts.setdefault(key, Debt())
            if debt.add(tally, looked, now_ms, self._retention.commits_ms):
                self._due.add(debt.due_ms, key)

    # --- what goes wrong ----------------------------------------------------------------------

    def _broken(self, key: ObjectKey, entry: Written | None, error: DosqlError) -> None:
        """What we believed of the files is wrong, or one is damaged: look once, then give up until
        the object is written again."""
        if entry is None or self._objects.find(key) is not entry:
            return
        entry.failures += 1
        if entry.failures > 1:
            _log.error("object %s is not compacted: %s", key.id.hex(), error)
            self.statistics.failures += 1
            self._objects.remove(key)
            return
        entry.chain, entry.wants_look = Chain(), True
        self._later(key, self._clock.now_ms())

    def _later(self, key: ObjectKey, now_ms: int) -> None:
        """Try again after a pause, and leave the bucket alone until then."""
        self._due.pause(_PAUSE_MS)
        entry, debt = self._objects.find(key), self._debts.get(key)
        if entry is not None:
            entry.due_ms = now_ms + _PAUSE_MS
        if debt is not None and 0 < debt.due_ms <= now_ms:
            debt.due_ms = now_ms + _PAUSE_MS
        self._due.add(now_ms + _PAUSE_MS, key)

    async def _quietly(self, work: Callable[[], None]) -> None:
        try:
            await self._ground.on_thread(work)
        except Exception as error:
            _log.warning("the replica of an object that is gone was not removed: %s", error)
