"""A host in memory: the real `Objects`, catalog and alarm clock over a `MemoryLog`."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from dosql.clock import Clock, Randomness, SystemRandomness, Timers
from dosql.errors import DosqlError, UnavailableError
from dosql.host.alarm_index import AlarmIndex
from dosql.host.catalog import CATALOG_KEY, CATALOG_MIGRATIONS, Catalog
from dosql.host.objects import Objects
from dosql.ids import ObjectId
from dosql.log.records import ObjectKey
from dosql.objects.app import App
from dosql.objects.instance import Instance
from dosql.sqlite.migrations import apply_migrations
from dosql.testing.memory import MemoryGround
from dosql.testing.memory_grounds import MemoryGrounds
from dosql.testing.memory_log import MemoryLog


class MemoryHost:
    """One process's worth of objects, over what ``log`` has. Ends with `close`, or with `kill`."""

    def __init__(
        self,
        app: App,
        *,
        log: MemoryLog,
        clock: Clock,
        timers: Timers,
        randomness: Randomness | None = None,
    ) -> None:
        self.log = log
        self.grounds = MemoryGrounds(log, clock)
        self._clock = clock
        self._catalog_wake: asyncio.Task[MemoryGround] | None = None
        self.index = self._make_index()
        self.objects = Objects(
            app,
            self.grounds,
            catalog=self.catalog,
            index=self.index,
            add_record=log.add,
            clock=clock,
            timers=timers,
            randomness=randomness or SystemRandomness(),
        )

    async def start(self) -> None:
        """Open the catalog, and run the alarms that are overdue."""
        await self._wake_catalog()
        await self.objects.start()

    @property
    def env(self) -> Any:
        """What objects get as ``env``."""
        return self.objects.env

    def catalog(self, namespace: str) -> Catalog:
        """The objects of one namespace that exist."""
        return Catalog(namespace, self._catalog_instance)

    def key_of(self, namespace: str, id: bytes) -> ObjectKey | None:
        """Under which key the object is stored; None: it never stored anything."""
        entry = self.catalog(namespace).find_by_id(id)
        return None if entry is None else entry.key

    def ids(self, namespace: str) -> list[ObjectId]:
        """The ids of all objects of the namespace that store something, by name."""
        rows = self._catalog_instance().db.query(
            "SELECT id, name FROM objects WHERE namespace = ? ORDER BY name, id", [namespace]
        )
        return [ObjectId(id, name) for id, name in rows.rows]  # type: ignore[arg-type]

    @property
    def catalog_ground(self) -> MemoryGround | None:
        """The catalog's own; None while it is being rebuilt."""
        return self.grounds.peek(CATALOG_KEY)

    def ground(self, id: ObjectId) -> MemoryGround | None:
        """The object's ground, if it is in memory and whole."""
        resident = self.objects.resident(id)
        return None if resident is None else self.grounds.peek(resident.key)

    async def hibernate(self, id: ObjectId | None = None) -> None:
        """Let the object, or all, leave memory as if idle; not while something is under way."""
        for each in self.grounds.all():
            if each.key != CATALOG_KEY and (id is None or each.key.id == id.raw):
                await self.grounds.sleep_now(each.key)

    async def close(self) -> None:
        """Let every object leave memory, as at a clean stop; what was held becomes durable."""
        self.log.release()
        await self.objects.close(0.0)

    async def kill(self, error: DosqlError) -> None:
        """End it as a crash does, the log's included: nothing more becomes durable, and whoever
        waits for an answer gets ``error``."""
        self.grounds.kill(error)
        await self.objects.close(0.0)

    def _make_index(self) -> AlarmIndex:
        return AlarmIndex(self._catalog_instance)

    async def _wake_catalog(self) -> MemoryGround:
        ground = await self.grounds.ground(CATALOG_KEY)
        apply_migrations(ground.db, CATALOG_MIGRATIONS, now_ms=self._clock.now_ms())
        ground.after_work()
        return ground

    def _catalog_instance(self) -> Instance:
        ground = self.grounds.peek(CATALOG_KEY)
        if ground is None:
            if self._catalog_wake is None or self._catalog_wake.done():
                loop = asyncio.get_running_loop()
                self._catalog_wake = loop.create_task(self._wake_catalog())
                self._catalog_wake.add_done_callback(_retrieve)
            raise UnavailableError(
                "The catalog is being rebuilt after a failure.", code="object_recovering"
            )
        return cast(Instance, ground)


def _retrieve(task: asyncio.Task[MemoryGround]) -> None:
    """Whoever comes next tries again."""
    if not task.cancelled():
        task.exception()
