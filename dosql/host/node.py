"""Node: what all objects of a process stand on: the log, files, the bucket, the awake ones."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from dosql.clock import Clock, Randomness, Timers
from dosql.durability import Durability
from dosql.errors import CorruptError, UnavailableError
from dosql.host.awake import AwakeObjects
from dosql.host.catalog import CATALOG_KEY
from dosql.host.catalog_instance import CatalogInstance
from dosql.host.cold_tier import ColdTier
from dosql.host.compaction import CompactionStatistics
from dosql.host.file_threads import FileThreads
from dosql.host.file_upkeep import FileUpkeep
from dosql.host.host_settings import HostSettings
from dosql.host.host_statistics import HostStatistics
from dosql.host.instance_opener import InstanceOpener
from dosql.host.maintenance import Maintenance
from dosql.host.object_files import ObjectFiles
from dosql.host.orphan_sweep import sweep
from dosql.host.orphans import Part
from dosql.host.storage import Storage
from dosql.log.disk import Disk
from dosql.log.group_commit import CommitSource, GroupCommit
from dosql.log.records import Drop, ObjectKey, Record
from dosql.objects.instance import Budgets, Instance
from dosql.replica.shipper import ReplicationStatistics
from dosql.sqlite.priority import give_way

_WORKERS = 4
"""Threads for slow statements, and as many for files; SQLite releases the interpreter lock."""
_DESCRIPTORS_PER_OBJECT = 3
_NO_MERGES = CompactionStatistics()
_NO_COPIES = ReplicationStatistics(0, 0, 0.0, 0, 0)


class Node:
    """Belongs to the event loop it is made on. It knows objects by their keys only."""

    def __init__(
        self,
        settings: HostSettings,
        storage: Storage,
        *,
        clock: Clock,
        randomness: Randomness,
        disk: Disk,
        vfs: str | None,
        timers: Timers,
    ) -> None:
        self.directory = storage.directory
        self.log = storage.log
        self.workers = ThreadPoolExecutor(
            _WORKERS, thread_name_prefix="dosql-sql", initializer=give_way
        )
        self.file_threads = FileThreads(_WORKERS)
        self.files = ObjectFiles(
            self.directory.objects,
            log=self.log,
            disk=disk,
            clock=clock,
            limits=settings.limits,
            vfs=vfs,
            changes=settings.changes,
        )
        self.commits = GroupCommit(self.log, on_flushed=self._flushed, on_appended=self._appended)
        self.cold = _cold_tier(
            settings, storage, self.file_threads, clock, randomness, disk, timers
        )
        self.awake = AwakeObjects(
            self.files,
            InstanceOpener(
                self.files,
                commits=self.commits,
                cold=self.cold,
                clock=clock,
                workers=self.workers,
                file_threads=self.file_threads,
                budgets=Budgets(settings.inline_ms / 1000, settings.statement_ms / 1000),
            ),
            cold=self.cold,
            clock=clock,
            file_threads=self.file_threads,
            count_max=settings.open_objects_max + 1,  # the catalog does not count
        )
        self.upkeep = FileUpkeep(self.awake, self.files, self.log, self.file_threads)
        self.catalog = CatalogInstance(self.awake, self.cold, settings.durability)
        self.maintenance = Maintenance(
            self.awake,
            self.upkeep,
            self.log,
            self.file_threads,
            log_bytes_max=settings.log_bytes_max,
            idle_s=settings.idle_seconds,
        )
        self._seeds = storage.seeds
        self._behind = storage.behind
        self.orphans = storage.orphans
        self.log.before_cut = self.orphans.note
        self.files.on_removed = partial(self.orphans.removed, part=Part.DISK)
        if self.cold is not None:
            self.files.retrieval = self.cold.retrieval
            self.files.on_cut = self.cold.cut
            self.cold.copy = self.upkeep.copy
            self.cold.on_void = self.awake.void
            self.cold.shipper.on_removed = partial(self.orphans.removed, part=Part.BUCKET)
        _raise_descriptor_limit(settings.open_objects_max)

    async def open_catalog(self, durability: Durability) -> None:
        """``durability``: the strictest mode of all namespaces.

        Raises CorruptError: it is damaged, and neither the bucket nor what was in the commit
        log makes up for that."""
        self.catalog.replicate_as(durability)
        try:
            await self.catalog.open()
        except CorruptError:
            if self.cold is None or not await self.cold.complete(CATALOG_KEY, self._seeds):
                raise
            await self.catalog.open()

    async def sweep(self, is_known: Callable[[ObjectKey], bool]) -> None:
        """Before `start`: finish imports and removals that an earlier run did not finish.
        ``is_known``: whether the catalog has the object."""
        await sweep(
            self.orphans,
            self._seeds,
            self._behind,
            self.upkeep,
            self.file_threads,
            is_known=is_known,
            has_file=self._has_file,
        )

    def _has_file(self, key: ObjectKey) -> bool:
        try:
            return self.files.txid(key) > 0
        except CorruptError:
            return True

    def start(self, durability: Durability) -> None:
        """Begin to look after what is awake, and send what an earlier run did not;
        ``durability``: the strictest mode of all namespaces."""
        self.maintenance.start()
        if self.cold is not None:
            self.cold.start(self._seeds, self.files.txid, durability)

    def check(self) -> None:
        """Raise the reason if nothing can be served: the log, the bucket, or the catalog."""
        if self.log.failed:
            raise UnavailableError("The commit log cannot be written.", code="commit_failed")
        if self.cold is not None:
            self.cold.check()
        self.catalog.check()

    def statistics(self) -> HostStatistics:
        """All but open transactions, of which it does not know."""
        counts = self.awake.statistics
        copies = self.cold.statistics() if self.cold is not None else _NO_COPIES
        merges = self.cold.compaction.statistics if self.cold is not None else _NO_MERGES
        return HostStatistics(
            awake_objects=len(self.awake) - 1,
            wakes=counts.wakes,
            evictions=counts.evictions,
            broken=counts.broken,
            flushes=self.log.groups,
            batches=self.commits.batches,
            log_bytes=self.log.size_bytes,
            turn_waiters=sum(each.turns.waiting for each in self.awake.all()),
            objects_behind=copies.objects_behind,
            spool_bytes=copies.spool_bytes,
            bucket_stalled_seconds=copies.stalled_s,
            objects_refusing_writes=self.cold.refusing() if self.cold is not None else 0,
            files_shipped=copies.files,
            bytes_shipped=copies.bytes,
            compactions=merges.compactions,
            snapshots=merges.snapshots,
            files_deleted=merges.files_deleted,
            compaction_failures=merges.failures,
        )

    # --- the end ------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Give the bucket a moment to take everything, while replies may still wait for it."""
        await self.maintenance.stop()
        if self.cold is not None:
            await self.cold.drain()

    async def sleep_all(self) -> None:
        """Put every object but the catalog to sleep."""
        self.awake.closing = True
        await self.awake.moves.settled()
        for instance in self.awake.all():
            if instance.key != CATALOG_KEY:
                await self.awake.sleep(instance)
        await self.awake.moves.settled()

    async def cut_log(self) -> None:
        """Put the catalog to sleep as well, make all files durable, and empty the log."""
        catalog = self.awake.peek(CATALOG_KEY)
        if catalog is not None:
            await self.awake.sleep(catalog)
        await self.commits.idle()
        await self.awake.moves.settled()
        if self.cold is not None:
            await self.cold.drain()
            await self.cold.close()
        synced = map(self.upkeep.make_durable, self.files.unsynced())
        for outcome in await asyncio.gather(*synced, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        if not self.files.has_distrusted:
            await self.file_threads.run(self.log.cut_all)

    def release(self) -> None:
        """Give threads, log and directory back, as they are."""
        self.commits.close()
        self.log.close()
        self.workers.shutdown()
        self.file_threads.close()
        self.directory.release()

    # --- hooks --------------------------------------------------------------------------------

    def _appended(self, records: list[Record]) -> None:
        parts = Part.DISK if self.cold is None else Part.DISK | Part.BUCKET
        for record in records:
            if isinstance(record, Drop):
                self.orphans.leaving(record.key, parts)
        if self.cold is not None:
            self.cold.appended(records)

    def _flushed(self, sources: list[CommitSource]) -> None:
        self.maintenance.flushed([each for each in sources if isinstance(each, Instance)])


def _cold_tier(
    settings: HostSettings,
    storage: Storage,
    file_threads: FileThreads,
    clock: Clock,
    randomness: Randomness,
    disk: Disk,
    timers: Timers,
) -> ColdTier | None:
    if settings.cold is None or storage.behind is None:
        return None
    return ColdTier(
        settings.cold,
        epoch=storage.directory.next_epoch(disk, randomness),
        behind=storage.behind,
        catalog=CATALOG_KEY,
        scratch=storage.directory.scratch,
        log=storage.log,
        disk=disk,
        clock=clock,
        timers=timers,
        file_threads=file_threads,
    )


def _raise_descriptor_limit(open_objects: int) -> None:
    """Allow as many descriptors as the objects may need, if the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_objects * _DESCRIPTORS_PER_OBJECT + 1_024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, target), hard))
