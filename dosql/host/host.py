"""Host: one process's objects, from the data directory to the stubs that call them."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dosql.clock import Clock, LoopTimers, Randomness, SystemClock, SystemRandomness, Timers
from dosql.errors import DosqlError, UnavailableError
from dosql.host.branch_catalog import BranchCatalog
from dosql.host.catalog import CATALOG_KEY, Catalog
from dosql.host.changes import Changes
from dosql.host.host_settings import HostSettings
from dosql.host.host_statistics import HostStatistics
from dosql.host.late_past import LatePast
from dosql.host.namespace_durability import NamespaceDurability
from dosql.host.node import Node
from dosql.host.schemas import Schemas
from dosql.host.storage import open_storage, unusable
from dosql.host.tenants import NAMESPACE, Tenants
from dosql.host.tokens import Tokens
from dosql.host.usage import Usage
from dosql.log.disk import Disk, RealDisk

if TYPE_CHECKING:
    from dosql.host.objects import Objects
    from dosql.host.past import Past
    from dosql.objects.app import App

__all__ = ["Host", "HostSettings", "HostStatistics"]

_log = logging.getLogger("dosql.host")


class Host:
    """Use `start`; everything belongs to the event loop it is called on."""

    def __init__(
        self,
        settings: HostSettings,
        node: Node,
        durability: NamespaceDurability,
        *,
        clock: Clock,
        randomness: Randomness,
        disk: Disk,
        timers: Timers,
    ) -> None:
        self.settings = settings
        self.node = node
        self.cold = node.cold
        """The bucket's side; None without one."""
        self.durability = durability
        durability.on_change = lambda: node.catalog.replicate_as(durability.strictest)
        self._clock = clock
        self._randomness = randomness
        self._timers = timers
        self._closing = False
        catalog = self._catalog = BranchCatalog(
            NAMESPACE, node.catalog, node.catalog.arrival(durability.of(NAMESPACE))
        )
        self.tokens = Tokens(catalog, clock, randomness)
        usage = self._usage = Usage(catalog, clock, len(settings.migrations))
        node.awake.on_sleep = usage.slept
        node.maintenance.on_sweep = usage.record
        self.tenants = Tenants(
            catalog,
            node,
            usage,
            settings=settings,
            clock=clock,
            randomness=randomness,
            disk=disk,
            on_removed=self.tokens.forget,
        )
        self.tenants.check_removal = catalog.check_removal
        if node.cold is not None:
            node.cold.compaction.protected = catalog.needed
            past = LatePast(node, node.cold, self.tenants, catalog, settings, clock)
            node.awake.past = self.tenants.past = past
            node.files.on_open = past.restore_at_wake
        self.changes = Changes(settings.changes, clock=clock, timers=timers)
        self.tenants.on_durable = self.changes.durable
        self.schemas = Schemas(self.tenants, catalog, node.awake, usage, settings.migrations)
        self._objects: Objects | None = None

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
            InvalidRequestError: ``app_invalid``: a class needs a bucket, and there is none.
            CorruptError: ``log_damaged``: acknowledged commits may be missing;
                ``catalog_incomplete``: the catalog is damaged, and the bucket lacks commits of it.
            UnavailableError: a file could not be read or written; nothing is lost by it.
        """
        clock = clock or SystemClock()
        randomness = randomness or SystemRandomness()
        disk = disk or RealDisk()
        timers = timers or LoopTimers()
        durability = NamespaceDurability(settings.durability, has_bucket=settings.cold is not None)
        if app is not None:
            durability.use(app)
        storage = open_storage(settings, disk, randomness)
        try:
            node = Node(
                settings,
                storage,
                clock=clock,
                randomness=randomness,
                disk=disk,
                vfs=vfs,
                timers=timers,
            )
        except BaseException as error:
            storage.directory.release()
            if isinstance(error, OSError):
                raise unusable(error) from error
            raise
        try:
            await node.open_catalog(durability.strictest)
            host = cls(
                settings,
                node,
                durability,
                clock=clock,
                randomness=randomness,
                disk=disk,
                timers=timers,
            )
            host._catalog.load()
            await node.sweep(host._catalog.knows)
            if app is not None:
                host._objects = host._open_objects(app)
        except BaseException:
            if node.cold is not None:
                await node.cold.close()
            node.release()
            raise
        node.start(durability.strictest)
        if host._objects is not None:
            await host._objects.start()
        return host

    @property
    def objects(self) -> Objects:
        """The objects of the app's classes; none of a host without an app."""
        if self._objects is None:
            from dosql.objects.app import App

            self._objects = self._open_objects(App())
        return self._objects

    def _open_objects(self, app: App) -> Objects:
        from dosql.host.alarm_index import AlarmIndex
        from dosql.host.objects import Objects  # a quarter of the start of a host without an app

        return Objects(
            app,
            self.node.awake,
            catalog=self._catalog_of,
            durability=self.durability,
            index=AlarmIndex(self.node.catalog),
            add_record=self.node.commits.add,
            clock=self._clock,
            timers=self._timers,
            randomness=self._randomness,
        )

    def _catalog_of(self, namespace: str) -> Catalog:
        arrival = self.node.catalog.arrival(self.durability.of(namespace))
        return Catalog(namespace, self.node.catalog, arrival)

    @property
    def past(self) -> Past:
        """What is kept of the past of all objects. Raises InvalidRequestError (``no_bucket``)."""
        return self.tenants.past()

    @property
    def scratch_dir(self) -> Path:
        """For temporary files on the file system of the objects; emptied at the start."""
        return self.node.directory.scratch

    async def check(self) -> None:
        """Raise the reason if the host cannot serve: the log, the catalog, or a shutdown."""
        if self._closing:
            raise UnavailableError("The server is shutting down.", code="shutting_down")
        self.node.check()

    def statistics(self) -> HostStatistics:
        """For metrics and tests."""
        counts = self.node.statistics()
        return replace(counts, open_transactions=len(self.tenants.transactions))

    async def close(self) -> None:
        """Refuse new work, finish what runs, put everything to sleep durably, cut the log.

        A process that is killed instead loses nothing; its next start takes longer.
        """
        self._closing = True
        node = self.node
        try:
            await self.tenants.close()
            if self._objects is not None:
                await self._objects.close()
            await node.drain()
            await node.sleep_all()
            if node.awake.peek(CATALOG_KEY) is not None:
                with contextlib.suppress(DosqlError):  # no reply depends on it
                    self._usage.record()
            await node.cut_log()
        except DosqlError:
            _log.warning("the commit log was not cut; the next start will redo it", exc_info=True)
        finally:
            node.release()
