"""Compaction: when the files of which object are merged, and which of them are removed.

One timer for the whole node, driven by what the bucket took. An object is due when a span of time
has ended in which it was written; when nothing more can come of what it wrote, it is forgotten and
causes no request any more, but for one sweep when much of what was merged has expired.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from dosql.clock import Clock, Timer, Timers
from dosql.errors import CorruptError, DosqlError, NotFoundError
from dosql.limits import (
    COMPACTION_GRACE_MS,
    COMPACTION_OBJECTS_MAX,
    COMPACTION_PAUSE_S,
    COMPACTIONS_MAX,
    REPLICA_LOOK_BYTES,
    REPLICA_LOOK_TXIDS,
    RETENTION_GRACE_MS,
    SWEEP_BYTES_MIN,
    SWEEP_FILES_MIN,
)
from dosql.log.records import ObjectKey
from dosql.replica.chain import MERGED_LEVELS, Chain, look, span_end_ms
from dosql.replica.compactor import Compactor, Stopped, Tally
from dosql.replica.plan import FileInfo
from dosql.replica.replica import Replica
from dosql.replica.retention import Needed, RetentionSettings, sweep

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


@dataclass(slots=True)
class CompactionStatistics:
    """Counts since the start."""

    compactions: int = 0
    """Merged files written, but for snapshots."""
    snapshots: int = 0
    files_deleted: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Object:
    """One that was written lately."""

    chain: Chain = field(default_factory=Chain)
    arrived: list[FileInfo] = field(default_factory=list[FileInfo])
    """Not yet in the chain, which a thread may be working on."""
    due_ms: int = 0
    look: bool = False
    """The chain has no base, and it is time to find out."""
    unseen_bytes: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Debt:
    """What an object's merges made superfluous."""

    files: int
    bytes: int
    last_ms: int
    due_ms: int = 0
    """When it is swept; 0: it is not worth it yet."""


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
        self._ground = ground
        self._scratch = scratch
        self._clock = clock
        self._timers = timers
        self._retention = retention
        self._objects: OrderedDict[ObjectKey, _Object] = OrderedDict()
        self._debts: dict[ObjectKey, _Debt] = {}
        self._schedule: list[tuple[int, int, ObjectKey]] = []
        self._numbers = itertools.count()
        self._timer: Timer | None = None
        self._timer_ms = 0
        self._ready: deque[ObjectKey] = deque()
        self._queued: set[ObjectKey] = set()
        self._runs: dict[ObjectKey, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused_until_ms = 0
        self._closing = False

    # --- what happens to objects --------------------------------------------------------------

    def shipped(self, key: ObjectKey, file: FileInfo) -> None:
        """The bucket took this file of the raw level."""
        if self._closing:
            return
        entry = self._objects.get(key)
        if entry is None:
            entry = self._objects[key] = _Object()
            self._forget_oldest()
        else:
            self._objects.move_to_end(key)
        entry.arrived.append(file)
        entry.unseen_bytes += file.size
        if (
            file.max_txid // REPLICA_LOOK_TXIDS != (file.min_txid - 1) // REPLICA_LOOK_TXIDS
            or entry.unseen_bytes >= REPLICA_LOOK_BYTES
        ):
            entry.look = True
        due_ms = span_end_ms(file, 1) + COMPACTION_GRACE_MS
        if not entry.due_ms or due_ms < entry.due_ms:
            entry.due_ms = due_ms
            self._plan(due_ms, key)

    def forget(self, key: ObjectKey) -> None:
        """The object is not ours any more: nothing is written or removed for it from now on."""
        self._objects.pop(key, None)
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

    @property
    def known(self) -> int:
        """How many objects are kept in mind."""
        return len(self._objects.keys() | self._debts.keys())

    async def settled(self) -> None:
        """Return when nothing runs; for tests."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Stop. What was merged so far is kept; the rest is merged when the object is written
        again."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for run in self._runs.values():
            run.cancelled = True
        await self.settled()

    # --- when ---------------------------------------------------------------------------------

    def _plan(self, due_ms: int, key: ObjectKey) -> None:
        heapq.heappush(self._schedule, (due_ms, next(self._numbers), key))
        self._arm()

    def _arm(self) -> None:
        """Set the timer for whoever is due next."""
        if self._closing or not self._schedule:
            return
        due_ms = max(self._schedule[0][0], self._paused_until_ms)
        if self._timer is not None:
            if self._timer_ms <= due_ms:
                return
            self._timer.cancel()
        self._timer_ms = due_ms
        seconds = max(0.01, (due_ms - self._clock.now_ms()) / 1000)
        self._timer = self._timers.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_ms = self._clock.now_ms()
        if self._ground.is_stalled():
            self._paused_until_ms = now_ms + _PAUSE_MS
        if now_ms >= self._paused_until_ms:
            while self._schedule and self._schedule[0][0] <= now_ms:
                key = heapq.heappop(self._schedule)[2]
                if key in self._runs:
                    self._plan(now_ms + _AGAIN_MS, key)
                elif key not in self._queued and self._is_due(key, now_ms):
                    self._queued.add(key)
                    self._ready.append(key)
            self._start()
        self._arm()

    def _is_due(self, key: ObjectKey, now_ms: int) -> bool:
        entry, debt = self._objects.get(key), self._debts.get(key)
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
        entry = self._objects.get(key)
        try:
            if entry is not None and 0 < entry.due_ms <= now_ms:
                await self._compact(key, entry, run, now_ms)
                entry.failures = 0
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
            self._objects.pop(key, None)
            self._debts.pop(key, None)

    async def _compact(self, key: ObjectKey, entry: _Object, run: _Run, now_ms: int) -> None:
        entry.due_ms = 0
        for file in entry.arrived:
            entry.chain.add(file)
        entry.arrived.clear()
        wants_look = entry.look and entry.chain.base is None
        entry.look, entry.unseen_bytes = False, 0
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
            self._count(key, compactor.tally, now_ms)
        if self._objects.get(key) is entry:
            self._next(key, entry, end_ms, now_ms)

    def _next(self, key: ObjectKey, entry: _Object, end_ms: int | None, now_ms: int) -> None:
        """When the object is due again, or that it is done."""
        ends = [span_end_ms(file, 1) for file in entry.arrived[:1]]
        ends += [end_ms] if end_ms is not None else []
        if not ends and entry.chain.files:
            last_ms = span_end_ms(entry.chain.files[-1], MERGED_LEVELS[-1])
            ends += [last_ms] if last_ms + COMPACTION_GRACE_MS > now_ms else []
        if not ends:
            del self._objects[key]
            return
        entry.due_ms = min(ends) + COMPACTION_GRACE_MS
        self._plan(entry.due_ms, key)

    async def _sweep(self, key: ObjectKey, debt: _Debt, now_ms: int) -> None:
        replica, protected = self._ground.replica(key), partial(self.protected, key)
        gone = await self._ground.on_thread(
            lambda: sweep(replica, now_ms, self._retention, protected)
        )
        self.statistics.files_deleted += len(gone)
        if self._debts.get(key) is not debt:
            return
        if debt.last_ms + self._retention.commits_ms > now_ms:
            self._plan_sweep(key, debt)  # what was merged since is too young yet
        else:
            del self._debts[key]

    def _count(self, key: ObjectKey, tally: Tally, now_ms: int) -> None:
        self.statistics.compactions += tally.compactions
        self.statistics.snapshots += tally.snapshots
        if not tally.inputs or key not in self._objects:
            return
        debt = self._debts.setdefault(key, _Debt(0, 0, now_ms))
        debt.files += tally.inputs
        debt.bytes += tally.input_bytes
        debt.last_ms = now_ms
        if not debt.due_ms and (debt.files >= SWEEP_FILES_MIN or debt.bytes >= SWEEP_BYTES_MIN):
            self._plan_sweep(key, debt)

    def _plan_sweep(self, key: ObjectKey, debt: _Debt) -> None:
        debt.due_ms = debt.last_ms + self._retention.commits_ms + RETENTION_GRACE_MS
        self._plan(debt.due_ms, key)

    # --- what goes wrong ----------------------------------------------------------------------

    def _broken(self, key: ObjectKey, entry: _Object | None, error: DosqlError) -> None:
        """What we believed of the files is wrong, or one is damaged: look once, then give up until
        the object is written again."""
        if entry is None or self._objects.get(key) is not entry:
            return
        entry.failures += 1
        if entry.failures > 1:
            _log.error("object %s is not compacted: %s", key.id.hex(), error)
            self.statistics.failures += 1
            del self._objects[key]
            return
        entry.chain, entry.look = Chain(), True
        self._later(key, self._clock.now_ms())

    def _later(self, key: ObjectKey, now_ms: int) -> None:
        """Try again after a pause, and leave the bucket alone until then."""
        self._paused_until_ms = now_ms + _PAUSE_MS
        entry, debt = self._objects.get(key), self._debts.get(key)
        if entry is not None:
            entry.due_ms = self._paused_until_ms
        if debt is not None and 0 < debt.due_ms <= now_ms:
            debt.due_ms = self._paused_until_ms
        self._plan(self._paused_until_ms, key)

    async def _quietly(self, work: Callable[[], None]) -> None:
        try:
            await self._ground.on_thread(work)
        except Exception as error:
            _log.warning("the replica of an object that is gone was not removed: %s", error)

    def _forget_oldest(self) -> None:
        """Bound the memory."""
        while len(self._objects) > COMPACTION_OBJECTS_MAX:
            del self._objects[next(iter(self._objects))]
