"""Resident: one object of a class in memory, between its ground and the catalog.

Invariants:
- An object is in the catalog before anything that it stored is durable.
- Its earliest alarm is noted there no later than it is committed in the object itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from dosql.clock import Clock, Timers
from dosql.errors import DosqlError
from dosql.host.catalog import Catalog, Entry, ObjectEntry, Use
from dosql.ids import ObjectId
from dosql.log.records import ObjectKey
from dosql.objects.activation import Activation
from dosql.objects.alarm_runs import AlarmRunner, EarliestAlarm
from dosql.objects.alarm_store import AlarmStore
from dosql.objects.alarms import Alarms
from dosql.objects.app import Registration
from dosql.objects.connections import CLOSE_RESTART
from dosql.objects.emptiness import is_empty
from dosql.objects.ground import Ground
from dosql.objects.kv_store import KeyValueStore
from dosql.objects.life import Life
from dosql.objects.sockets import Sockets
from dosql.objects.sql import Sql
from dosql.objects.state import ObjectState
from dosql.objects.storage import ObjectStorage


class Resident:
    """From a wake to the sleep, or the reset, that follows it."""

    def __init__(
        self,
        id: ObjectId,
        registration: Registration,
        env: Any,
        *,
        ground: Ground,
        catalog: Catalog,
        entry: ObjectEntry | None,
        sockets: Sockets,
        clock: Clock,
        timers: Timers,
        on_alarm: Callable[[int], None],
        on_end: Callable[[Resident], None],
    ) -> None:
        self.id = id
        self.namespace = registration.namespace
        self.ground = ground
        self.sockets = sockets
        self._catalog = catalog
        self._entry = entry
        """None until the object first stores something."""
        self._clock = clock
        self._on_alarm = on_alarm
        self._on_end = on_end
        self.activation = Activation(
            ground,
            clock=clock,
            timers=timers,
            before_commit=self._before_commit,
            on_end=self._ended,
        )
        entries = KeyValueStore(self.activation.access)
        alarms = AlarmStore(
            self.activation.access, clock, has_handler=lambda: hasattr(registration.cls, "alarm")
        )
        self._earliest = EarliestAlarm(
            alarms, entry.alarm_at_ms if entry is not None else None, self._note_alarm
        )
        self.alarm_runner = AlarmRunner(
            alarms, lambda info: self.life.handler("alarm")(info), timers
        )
        storage = ObjectStorage(
            self.activation,
            entries=entries,
            sql=Sql(self.activation.access),
            alarms=Alarms(alarms, clock),
            alarm_store=alarms,
        )
        self.life = Life(
            id,
            registration.cls,
            env,
            activation=self.activation,
            ctx=ObjectState(id, self.activation, storage, sockets),
            sockets=sockets,
            clock=clock,
        )

    @property
    def key(self) -> ObjectKey:
        """Which life of the object in the log and on the disk."""
        return self.ground.key

    @property
    def is_alive(self) -> bool:
        """Whether its life has not ended."""
        return self.activation.ended is None

    @property
    def size_bytes(self) -> int:
        """Of its database, the open transaction included."""
        return self.ground.db.size_bytes

    # --- the catalog --------------------------------------------------------------------------

    def _before_commit(self) -> None:
        """Within a step that wrote: the catalog must know first."""
        entry, name = self._entry, self.id.name
        if entry is None or entry.name != name:
            now = self._clock.now_ms()
            created = now if entry is None else entry.created_at_ms
            alarm = self._earliest.noted_ms
            if name is None:
                entry = ObjectEntry(None, self.key, created, now, alarm_at_ms=alarm)
            else:
                entry = Entry(name, self.key, created, now, alarm_at_ms=alarm)
            self._catalog.put_nowait(entry)
            self._entry = entry
        self._earliest.before_commit(self.ground.db)

    def _note_alarm(self, at_ms: int | None) -> None:
        self._catalog.set_alarm_nowait(self.key, at_ms)
        if at_ms is not None:
            self._on_alarm(at_ms)

    async def settle_alarms(self) -> None:
        """Make the catalog's time exact: it may be early, so that it is never late."""
        ground = self.ground

        async def settle() -> None:
            while ground.bookmark.txid != ground.durable_txid:
                await ground.durable(ground.bookmark.txid)
            self._settle()

        if self._entry is not None:
            await self.activation.run(settle)

    def _settle(self) -> None:
        entry = self._catalog.find_by_id(self.id.raw)
        if entry is not None and entry.key == self.key:
            # Not always what was last noted: a failed flush of the catalog alone undoes that.
            self._earliest.noted_ms = entry.alarm_at_ms
        self._earliest.settle(self.ground.db)

    def take_off_catalog(self) -> bool:
        """The object ceases to exist. False: the catalog never knew of it."""
        if self._entry is None:
            return False
        self._catalog.delete_id_nowait(self.id.raw)
        return True

    # --- the end ------------------------------------------------------------------------------

    def leave(self) -> bool:
        """In its turn, with nothing under way: leave memory. Whether nothing is stored."""
        empty = self._entry is None or self._is_empty()
        if not empty:
            with contextlib.suppress(DosqlError):  # it stays early
                self._settle()
            idle_ms = int((self._clock.monotonic() - self.ground.used_at) * 1000)
            use = Use(self._clock.now_ms() - idle_ms, self.ground.db.size_bytes, 0)
            with contextlib.suppress(DosqlError):  # no reply depends on it
                self._catalog.record_use_by_id([(self.key, use)])
        self.activation.retire()
        return empty

    def _is_empty(self) -> bool:
        try:
            return is_empty(self.ground.db)
        except DosqlError:
            return False

    def _ended(self, failed: bool) -> None:
        self._on_end(self)
        self.life.end()
        if failed:  # what clients were sent may not be all that is durable: they shall resume
            self.sockets.close_all(CLOSE_RESTART, "The object is being restarted.")
