"""Host: one process's objects, from the data directory to the stubs that call them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dosql import limits
from dosql.bookmarks import Bookmark
from dosql.clock import Clock, LoopTimers, Randomness, SystemClock, SystemRandomness, Timers
from dosql.errors import DosqlError, UnavailableError
from dosql.host.awake import AwakeObjects
from dosql.host.behind import Behind
from dosql.host.branch_catalog import BranchCatalog
from dosql.host.catalog import CATALOG_KEY, CATALOG_MIGRATIONS, Catalog
from dosql.host.changes import Changes, ChangeSettings
from dosql.host.cold_tier import ColdTier, ColdTierSettings
from dosql.host.compaction import CompactionStatistics
from dosql.host.data_directory import DataDirectory
from dosql.host.maintenance import Maintenance
from dosql.host.object_files import ObjectFiles
from dosql.host.schemas import Schemas
from dosql.host.seeds import Seeds
from dosql.host.tenants import NAMESPACE, Tenants
from dosql.host.tokens import Tokens
from dosql.host.usage import Usage
from dosql.log.disk import Disk, RealDisk
from dosql.log.group_commit import CommitSource, GroupCommit
from dosql.log.node_log import NodeLog
from dosql.log.records import ObjectKey, Record
from dosql.log.redo import Redo, RedoReport
from dosql.log.segments import damaged
from dosql.objects.instance import Budgets, Instance
from dosql.objects.pending_restore import pending_restore
from dosql.points import Point
from dosql.replica.shipper import ReplicationStatistics
from dosql.sqlite.database import Database, DatabaseLimits
from dosql.sqlite.migrations import Migration

if TYPE_CHECKING:
    from dosql.host.objects import Objects
    from dosql.host.past import Past
    from dosql.objects.app import App

_log = logging.getLogger("dosql.host")
_WORKERS = 4
"""Threads for slow statements, and as many for files; SQLite releases the interpreter lock."""
_DESCRIPTORS_PER_OBJECT = 3
_NO_MERGES = CompactionStatistics()
_NO_COPIES = ReplicationStatistics(0, 0, 0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Plain values only; clock, disk and randomness are passed beside them."""

    data_dir: Path
    migrations: tuple[Migration, ...] = ()
    open_objects_max: int = limits.OPEN_OBJECTS_MAX
    idle_seconds: float = limits.IDLE_SECONDS_MAX
    inline_ms: float = limits.INLINE_MS_MAX
    statement_ms: float = limits.STATEMENT_MS_MAX
    transaction_idle_s: float = limits.TRANSACTION_IDLE_S_MAX
    transaction_s: float = limits.TRANSACTION_S_MAX
    log_bytes_max: int = limits.LOG_BYTES_MAX
    log_segment_bytes: int = limits.LOG_SEGMENT_BYTES
    limits: DatabaseLimits = field(default_factory=DatabaseLimits)
    cold: ColdTierSettings | None = None
    """The bucket that everything is copied to."""
    changes: ChangeSettings = field(default_factory=ChangeSettings)


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """Counts since the start, and sizes now."""

    awake_objects: int
    wakes: int
    evictions: int
    broken: int
    flushes: int
    batches: int
    log_bytes: int
    turn_waiters: int
    open_transactions: int
    objects_behind: int = 0
    """Objects of which the bucket lacks something."""
    spool_bytes: int = 0
    """Of what waits for the bucket."""
    bucket_stalled_seconds: float = 0.0
    """For how long the bucket has not answered; 0: it does."""
    files_shipped: int = 0
    bytes_shipped: int = 0
    compactions: int = 0
    """Merged files written to the bucket, but for snapshots."""
    snapshots: int = 0
    files_deleted: int = 0
    """By retention."""
    compaction_failures: int = 0


class Host:
    """Use `start`; everything belongs to the event loop it is called on."""

    def __init__(
        self,
        settings: HostSettings,
        directory: DataDirectory,
        log: NodeLog,
        *,
        clock: Clock,
        randomness: Randomness,
        disk: Disk,
        vfs: str | None,
        behind: Behind | None = None,
        timers: Timers | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._randomness = randomness
        self._directory = directory
        self._log = log
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="dosql-sql")
        self._file_threads = ThreadPoolExecutor(_WORKERS, thread_name_prefix="dosql-files")
        self._files = ObjectFiles(
            directory.objects,
            log=log,
            disk=disk,
            clock=clock,
            limits=settings.limits,
            vfs=vfs,
            changes=settings.changes,
        )
        self._commits = GroupCommit(log, on_flushed=self._flushed, on_appended=self._appended)
        self._awake = AwakeObjects(
            self._files,
            log=log,
            commits=self._commits,
            clock=clock,
            workers=self._workers,
            file_threads=self._file_threads,
            budgets=Budgets(settings.inline_ms / 1000, settings.statement_ms / 1000),
            count_max=settings.open_objects_max + 1,  # the catalog does not count
        )
        self._awake.pin(CATALOG_KEY)
        self.cold: ColdTier | None = None
        if settings.cold is not None and behind is not None:
            self.cold = ColdTier(
                settings.cold,
                epoch=directory.next_epoch(disk, randomness),
                behind=behind,
                catalog=CATALOG_KEY,
                scratch=directory.scratch,
                log=log,
                disk=disk,
                clock=clock,
                timers=timers or LoopTimers(),
                file_threads=self._file_threads,
            )
            self._awake.replicate(self.cold)
        self._maintenance = Maintenance(
            self._awake,
            log,
            log_bytes_max=settings.log_bytes_max,
            idle_s=settings.idle_seconds,
        )
        catalog = BranchCatalog(NAMESPACE, self._catalog_instance)
        self._catalog = catalog
        self._catalog_wake: asyncio.Task[Instance] | None = None
        self._closing = False
        self.tokens = Tokens(catalog, clock, randomness)
        usage = Usage(catalog, clock, len(settings.migrations))
        self._usage = usage
        self.tenants = Tenants(
            catalog,
            self._awake,
            self._commits,
            usage,
            settings=settings,
            directory=directory,
            clock=clock,
            randomness=randomness,
            disk=disk,
            on_removed=self.tokens.forget,
        )
        self.tenants.cold = self.cold
        self.tenants.check_removal = catalog.check_removal
        self._past: Past | None = None
        if self.cold is not None:
            self.cold.compaction.protected = catalog.needed
            self.tenants.past = lambda: self.past
            self._awake.past = _LatePast(self)
            self._files.on_open = self._restore_at_wake
        self.changes = Changes(settings.changes, clock=clock, timers=timers or LoopTimers())
        self.tenants.on_durable = self.changes.durable
        self._objects: Objects | None = None
        self.schemas = Schemas(self.tenants, catalog, self._awake, usage, settings.migrations)
        self._awake.on_sleep = usage.slept
        self._maintenance.on_sweep = usage.record

    @classmethod
    async def start(
        cls,
        settings: HostSettings,
        *,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
        disk: Disk | None = None,
        vfs: str | None = None,
        app: App | None = None,
        timers: Timers | None = None,
    ) -> Host:
        """Lock the data directory, redo what an unclean stop left behind, open the catalog, run
        overdue alarms. ``app``: the classes whose objects it has beside tenants; ``timers``: those
        of the objects and of the alarms, which are the event loop's if none are given.

        Raises:
            ConflictError: ``data_dir_locked``: another process has the directory.
            CorruptError: ``log_damaged``: acknowledged commits may be missing.
            UnavailableError: a file could not be read or written; nothing is lost by it.
        """
        clock = clock or SystemClock()
        randomness = randomness or SystemRandomness()
        disk = disk or RealDisk()
        directory = DataDirectory(settings.data_dir)
        try:
            disk.sync_dir(directory.root)
            disk.sync_dir(directory.root.absolute().parent)
            log = NodeLog(
                directory.log,
                disk=disk,
                randomness=randomness,
                segment_bytes=settings.log_segment_bytes,
            )
            if log.is_new and directory.has_objects():
                raise damaged("it is missing, though there are objects")
            seeds, behind = Seeds(), None
            if settings.cold is not None:
                behind = Behind(directory.behind, disk)
                url = settings.cold.bucket.url
                if directory.bucket() != url:
                    behind.add(directory.keys())
                    directory.note_bucket(url, disk)
            recover(log, directory.objects, disk, seeds, behind)
            _raise_descriptor_limit(settings.open_objects_max)
            host = cls(
                settings,
                directory,
                log,
                clock=clock,
                randomness=randomness,
                disk=disk,
                vfs=vfs,
                behind=behind,
                timers=timers,
            )
        except BaseException as error:
            directory.release()
            if isinstance(error, OSError):
                raise _unusable(error) from error
            raise
        try:
            await host._awake.get(CATALOG_KEY, CATALOG_MIGRATIONS)
            host._catalog.load()
            if app is not None:
                host._objects = host._open_objects(app, timers or LoopTimers())
        except BaseException:
            host._release()
            raise
        host._maintenance.start()
        if host.cold is not None:
            host.cold.start(seeds, host._files.txid)
        if host._objects is not None:
            await host._objects.start()
        return host

    @property
    def objects(self) -> Objects:
        """The objects of the app's classes; none of a host without an app."""
        if self._objects is None:
            from dosql.objects.app import App

            self._objects = self._open_objects(App(), LoopTimers())
        return self._objects

    def _open_objects(self, app: App, timers: Timers) -> Objects:
        from dosql.host.alarm_index import AlarmIndex
        from dosql.host.objects import Objects  # a quarter of the start of a host without an app

        return Objects(
            app,
            self._awake,
            catalog=lambda namespace: Catalog(namespace, self._catalog_instance),
            index=AlarmIndex(self._catalog_instance),
            add_record=self._commits.add,
            clock=self._clock,
            timers=timers,
            randomness=self._randomness,
        )

    def _restore_at_wake(self, db: Database, key: ObjectKey) -> None:
        bookmark = pending_restore(db)
        if bookmark is not None and self.cold is not None:
            from dosql.host.past_states import restore_at_wake  # rarely wanted

            restore_at_wake(
                db,
                key,
                bookmark,
                self.cold.shipper.replica(key),
                scratch=self._directory.scratch,
                clock=self._clock,
                retention=self.settings.changes.retention,
            )

    @property
    def past(self) -> Past:
        """What is kept of the past of all objects. Raises InvalidRequestError (``no_bucket``)."""
        if self._past is None:
            if self.cold is None:
                return self.tenants.past()
            from dosql.host.past import Past  # of no use to most requests

            self._past = Past(
                self.tenants,
                self.cold,
                self._awake,
                self._catalog,
                scratch=self._directory.scratch,
                states=self._directory.states,
                clock=self._clock,
                workers=self._workers,
                settings=self.settings,
            )
        return self._past

    @property
    def scratch_dir(self) -> Path:
        """For temporary files on the file system of the objects; emptied at the start."""
        return self._directory.scratch

    async def check(self) -> None:
        """Raise the reason if the host cannot serve: the log, the catalog, or a shutdown."""
        if self._closing:
            raise UnavailableError("The server is shutting down.", code="shutting_down")
        if self._log.failed:
            raise UnavailableError("The commit log cannot be written.", code="commit_failed")
        if self.cold is not None:
            self.cold.check()
        instance = self._catalog_instance()
        instance.db.set_deadline(None)
        try:
            instance.db.query("SELECT 1")
        except DosqlError:
            instance.after_work()
            raise

    def statistics(self) -> HostStatistics:
        """For metrics and tests."""
        counts = self._awake.statistics
        copies = self.cold.statistics() if self.cold is not None else _NO_COPIES
        merges = self.cold.compaction.statistics if self.cold is not None else _NO_MERGES
        return HostStatistics(
            awake_objects=len(self._awake) - 1,
            wakes=counts.wakes,
            evictions=counts.evictions,
            broken=counts.broken,
            flushes=self._log.groups,
            batches=self._commits.batches,
            log_bytes=self._log.size_bytes,
            turn_waiters=sum(each.turns.waiting for each in self._awake.all()),
            open_transactions=len(self.tenants.transactions),
            objects_behind=copies.objects_behind,
            spool_bytes=copies.spool_bytes,
            bucket_stalled_seconds=copies.stalled_s,
            files_shipped=copies.files,
            bytes_shipped=copies.bytes,
            compactions=merges.compactions,
            snapshots=merges.snapshots,
            files_deleted=merges.files_deleted,
            compaction_failures=merges.failures,
        )

    async def close(self) -> None:
        """Refuse new work, finish what runs, put everything to sleep durably, cut the log.

        A process that is killed instead loses nothing; its next start takes longer.
        """
        self._closing = True
        try:
            await self.tenants.close()
            if self._objects is not None:
                await self._objects.close()
            await self._maintenance.stop()
            if self.cold is not None:
                await self.cold.drain()
            self._awake.closing = True
            await self._put_all_to_sleep()
            await self._cut_log()
        except DosqlError:
            _log.warning("the commit log was not cut; the next start will redo it", exc_info=True)
        finally:
            self._release()

    async def _put_all_to_sleep(self) -> None:
        await self._awake.settled()
        for instance in self._awake.all():
            if instance.key != CATALOG_KEY:
                await self._awake.sleep(instance)
        await self._awake.settled()
        catalog = self._awake.peek(CATALOG_KEY)
        if catalog is not None:
            with contextlib.suppress(DosqlError):  # no reply depends on it
                self._usage.record()
            await self._awake.sleep(catalog)
        await self._commits.idle()
        await self._awake.settled()

    async def _cut_log(self) -> None:
        if self.cold is not None:
            await self.cold.drain()
            await self.cold.close()
        synced = map(self._awake.make_durable, self._files.unsynced())
        for outcome in await asyncio.gather(*synced, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        if not self._files.has_distrusted:
            await self._awake.on_file_thread(self._log.cut_all)

    def _release(self) -> None:
        self._commits.close()
        self._log.close()
        self._workers.shutdown()
        self._file_threads.shutdown()
        self._directory.release()

    def _appended(self, records: list[Record]) -> None:
        if self.cold is not None:
            self.cold.appended(records)

    def _flushed(self, sources: list[CommitSource]) -> None:
        self._maintenance.flushed([each for each in sources if isinstance(each, Instance)])

    def _catalog_instance(self) -> Instance:
        instance = self._awake.peek(CATALOG_KEY)
        if instance is None:
            if self.cold is not None and self.cold.replaced:
                self.cold.check()
            if self._catalog_wake is None or self._catalog_wake.done():
                self._catalog_wake = asyncio.get_running_loop().create_task(
                    self._awake.get(CATALOG_KEY, CATALOG_MIGRATIONS)
                )
                self._catalog_wake.add_done_callback(_retrieve)
            raise UnavailableError(
                "The server is recovering from a failure; nothing was written.",
                code="object_recovering",
                retry_after_s=1,
            )
        return instance


class _LatePast:
    """What objects know of the past; nothing of it is loaded before it is wanted."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def bookmark_at(self, key: ObjectKey, point: Point) -> Bookmark:
        return await self._host.past.travel.bookmark_at(key, point)


def recover(
    log: NodeLog,
    objects: Path,
    disk: Disk,
    seeds: Seeds | None = None,
    behind: Behind | None = None,
) -> RedoReport:
    """Bring every file to the last durable commit, then start the log afresh. ``seeds`` get what
    was in it, and ``behind`` whose it was.

    Raises:
        CorruptError: ``log_damaged``.
    """
    history = log.history()
    if behind is not None and seeds is not None:
        history = seeds.watch(history)
    report = Redo(objects, disk).run(history)
    for key, reason in report.damaged.items():
        _log.error("object %s is damaged and will not be served: %s", key.id.hex(), reason)
    if report.records:
        _log.info("redid %d commits of %d objects", report.records, report.objects)
    if behind is not None and seeds is not None:
        behind.add(seeds.batches)
        behind.tails = seeds.tails
    log.cut_all(keep_aside=bool(report.damaged))
    return report


def _retrieve(task: asyncio.Task[Instance]) -> None:
    """Whoever comes next tries again; that it failed is in the log."""
    if not task.cancelled() and task.exception() is not None:
        _log.warning("the catalog could not be opened", exc_info=task.exception())


def _unusable(error: OSError) -> UnavailableError:
    return UnavailableError(f"The data directory cannot be used: {error.strerror or error}.")


def _raise_descriptor_limit(open_objects: int) -> None:
    """Allow as many descriptors as the objects may need, if the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = open_objects * _DESCRIPTORS_PER_OBJECT + 1_024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, target), hard))
