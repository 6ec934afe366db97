"""Lives: which objects of classes are in memory. Wakes each once, and ends its life at a sleep.

It is the `Leaving` of the grounds: they ask it before they put an object to sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from dosql.clock import Clock, Randomness, Timers
from dosql.errors import ObjectResetError, UnavailableError
from dosql.host.arrivals import Arrivals
from dosql.host.catalog import Catalog
from dosql.host.grounds import Grounds
from dosql.host.namespace_durability import NamespaceDurability
from dosql.host.resident import Resident
from dosql.ids import ObjectId
from dosql.log.group_commit import Flush
from dosql.log.records import Drop, ObjectKey, Record
from dosql.objects.app import Registration
from dosql.objects.sockets import Sockets

_PAUSE_S = 0.02
"""Between two looks at whether objects have become idle, when all of them are to go."""


class Address(NamedTuple):
    """Which object of which class."""

    namespace: str
    id: ObjectId


class Lives:
    """All of a host, of all the classes of its app."""

    def __init__(
        self,
        grounds: Grounds,
        *,
        catalog: Callable[[str], Catalog],
        durability: NamespaceDurability,
        add_record: Callable[[Record], Flush],
        make_sockets: Callable[[Address], Sockets],
        clock: Clock,
        timers: Timers,
        randomness: Randomness,
    ) -> None:
        self._grounds = grounds
        self._catalog_of = catalog
        self._durability = durability
        self._add_record = add_record
        self._make_sockets = make_sockets
        self._clock = clock
        self._timers = timers
        self._randomness = randomness
        self._residents: dict[ObjectKey, Resident] = {}
        self._by_id: dict[bytes, Resident] = {}
        self._ceasing: dict[ObjectKey, Resident] = {}
        self._arrivals: dict[bytes, Arrivals[Resident]] = {}
        self._wakes: set[asyncio.Task[Resident]] = set()
        self._sockets: WeakValueDictionary[bytes, Sockets] = WeakValueDictionary()
        self._registrations: Mapping[str, Registration] = {}
        self._env: Any = None
        self._gate = asyncio.Event()
        """Closed while the app is being replaced."""
        self._gate.set()
        self._closing = False
        self.on_alarm: Callable[[int], None] = lambda _: None
        """An object has an alarm at this time, in ms: nobody else may know of it yet."""
        grounds.leaving = self

    def use(self, registrations: Mapping[str, Registration], env: Any) -> None:
        """These classes, from the next wake on."""
        self._registrations, self._env = registrations, env

    def all(self) -> list[Resident]:
        """Everyone who is in memory."""
        return list(self._residents.values())

    def find(self, id: ObjectId) -> Resident | None:
        """The object, if it is in memory."""
        return self._by_id.get(id.raw)

    def sockets(self, address: Address) -> Sockets:
        """The object's sockets: they are kept as long as anybody refers to them."""
        sockets = self._sockets.get(address.id.raw)
        if sockets is None:
            sockets = self._sockets[address.id.raw] = self._make_sockets(address)
        return sockets

    def open_sockets(self, id: ObjectId) -> int:
        """How many WebSockets the object has, awake or not."""
        sockets = self._sockets.get(id.raw)
        return 0 if sockets is None else len(sockets)

    def all_sockets(self) -> list[Sockets]:
        """Of all objects that have any."""
        return list(self._sockets.values())

    # --- waking -------------------------------------------------------------------------------

    async def of(self, address: Address) -> Resident:
        """The object, in memory, its constructor done; calls go on in the order they came.

        Raises:
            UnavailableError: ``shutting_down``.
            DosqlError: it could not be woken; ObjectError: its constructor failed.
        """
        raw = address.id.raw
        arrivals = self._arrivals.get(raw)
        if arrivals is None:
            resident = self._by_id.get(raw)
            if resident is not None and resident.is_alive:
                self._grounds.used(resident.key)
                return resident
            arrivals = self._arrivals[raw] = Arrivals(partial(self._begin_wake, address))
        try:
            return await arrivals.wait()
        finally:
            self._forget_arrivals(raw)

    def _begin_wake(self, address: Address) -> asyncio.Task[Resident]:
        task = asyncio.get_running_loop().create_task(self._wake(address))
        self._wakes.add(task)

        def ended(_: asyncio.Task[Resident]) -> None:
            self._wakes.discard(task)
            if not task.cancelled():
                task.exception()  # who wanted it may have gone
            self._forget_arrivals(address.id.raw)

        task.add_done_callback(ended)
        return task

    def _forget_arrivals(self, raw: bytes) -> None:
        arrivals = self._arrivals.get(raw)
        if arrivals is not None and arrivals.is_over:
            del self._arrivals[raw]

    async def _wake(self, address: Address) -> Resident:
        await self._gate.wait()
        if self._closing:
            raise UnavailableError("The server is shutting down.", code="shutting_down")
        registration = self._registrations[address.namespace]
        catalog = self._catalog_of(address.namespace)
        entry = catalog.find_by_id(address.id.raw)
        if entry is None:
            incarnation = int.from_bytes(self._randomness.token_bytes(8), "little") >> 1
            key = ObjectKey(address.id.raw, incarnation)
            self._grounds.expect_new(key)
        else:
            await catalog.durable()  # else the object could vanish under an acknowledged write
            key = entry.key
        id = address.id
        if id.name is None and entry is not None:
            id = ObjectId(id.raw, entry.name)
        ground = await self._grounds.ground(key, self._durability.of(address.namespace))
        wrote = ground.bookmark.txid != ground.durable_txid
        resident = Resident(
            id,
            registration,
            self._env,
            ground=ground,
            catalog=catalog,
            entry=entry,
            sockets=self.sockets(address),
            clock=self._clock,
            timers=self._timers,
            on_alarm=self.on_alarm,
            on_end=self._forget,
        )
        self._residents[key] = self._by_id[id.raw] = resident
        if entry is not None and entry.alarm_at_ms is not None:
            # A failed flush may have brought this time back after the clock last looked; and the
            # object will not tell of alarms that are later.
            self.on_alarm(entry.alarm_at_ms)
        await resident.life.begin()
        if wrote:  # the wake was a restore, which may have brought other alarms
            await resident.settle_alarms()
        return resident

    def _forget(self, resident: Resident) -> None:
        if self._residents.get(resident.key) is resident:
            del self._residents[resident.key]
        if self._by_id.get(resident.id.raw) is resident:
            del self._by_id[resident.id.raw]

    # --- leaving: see `Leaving` ---------------------------------------------------------------

    def keeps_awake(self, key: ObjectKey) -> bool:
        resident = self._residents.get(key)
        return resident is not None and resident.sockets.pins

    async def before_sleep(self, key: ObjectKey) -> None:
        resident = self._residents.get(key)
        if resident is not None and resident.is_alive:
            await resident.life.pre_shutdown("shutdown" if self._closing else "hibernate")

    def leave(self, key: ObjectKey) -> bool:
        resident = self._residents.get(key)
        if resident is None:
            return False
        ceases = resident.leave()
        if ceases:
            self._ceasing[key] = resident
        return ceases

    def cease(self, key: ObjectKey) -> Flush | None:
        if self._ceasing.pop(key).take_off_catalog():
            return self._add_record(Drop(key))
        return None

    async def sleep(self, resident: Resident) -> None:
        """Let the object leave memory, if nothing is under way."""
        await self._grounds.sleep_now(resident.key)

    # --- all at once --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def emptied(self, grace_s: float) -> AsyncIterator[None]:
        """While this lasts no object is in memory, and calls wait.

        What is under way has ``grace_s`` to end; then its object is reset.
        """
        self._gate.clear()
        try:
            await self.end_all(grace_s)
            yield
        finally:
            self._gate.set()

    async def close(self, grace_s: float) -> None:
        """Refuse calls from now on, and end all lives as `emptied` does."""
        self._closing = True
        await self.end_all(grace_s)

    async def end_all(self, grace_s: float) -> None:
        """Put every object to sleep."""
        ends_at = self._clock.monotonic() + grace_s
        while self._wakes or self._residents:
            if self._wakes and self._closing:
                await asyncio.wait(set(self._wakes))
            for resident in self.all():
                await self._grounds.sleep_now(resident.key)
            left = self.all()
            if not left:
                if not self._closing:
                    return
                continue
            if self._clock.monotonic() >= ends_at:
                for resident in left:
                    resident.activation.reset(
                        ObjectResetError("The object was reset: the server is being stopped.")
                    )
            await asyncio.sleep(_PAUSE_S)
