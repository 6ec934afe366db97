"""Objects: the class face of a host. Brings calls, requests, frames and alarms to objects."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from dosql.clock import Clock, Randomness, Timers, iso_from_ms
from dosql.durability import Durability
from dosql.errors import NotFoundError
from dosql.fetch import Request, Response
from dosql.host.alarm_clock import AlarmClock
from dosql.host.alarm_index import AlarmIndex, DueAlarm
from dosql.host.catalog import Catalog, Entry
from dosql.host.grounds import Grounds
from dosql.host.lives import Address, Lives
from dosql.host.namespace import Namespace
from dosql.host.namespace_durability import NamespaceDurability
from dosql.host.resident import Resident
from dosql.host.tenant import Done
from dosql.ids import ObjectId
from dosql.log.group_commit import Flush
from dosql.log.records import Record
from dosql.objects.alarm_runs import AlarmOutcome, AlarmRunner, run_due
from dosql.objects.app import App
from dosql.objects.connections import CLOSE_RESTART, Connection, SocketEvent
from dosql.objects.durable_object import DurableObject
from dosql.objects.events import leave_event
from dosql.objects.idempotency import Idempotency
from dosql.objects.instance import InstanceClosed
from dosql.objects.rpc import RpcMethod, RpcMethods
from dosql.objects.sockets import Sockets
from dosql.wire.objects import ObjectInfo, ObjectPage

T = TypeVar("T")
_log = logging.getLogger("dosql.host")
_PAGE_MAX = 1_000
_GRACE_S = 10.0
"""What events under way have to end when their object must leave memory."""


class Objects:
    """All objects of the app's classes. `start` begins to look after alarms."""

    def __init__(
        self,
        app: App,
        grounds: Grounds,
        *,
        catalog: Callable[[str], Catalog],
        index: AlarmIndex,
        add_record: Callable[[Record], Flush],
        clock: Clock,
        timers: Timers,
        randomness: Randomness,
        durability: NamespaceDurability | None = None,
    ) -> None:
        """``durability``: which mode each namespace has; None: it makes no difference."""
        self._clock = clock
        self._randomness = randomness
        self._catalog_of = catalog
        self._durability = durability or NamespaceDurability()
        self._lives = Lives(
            grounds,
            catalog=catalog,
            durability=self._durability,
            add_record=add_record,
            make_sockets=self._make_sockets,
            clock=clock,
            timers=timers,
            randomness=randomness,
        )
        self._alarm_clock = AlarmClock(index, self._alarms, clock=clock, timers=timers)
        self._lives.on_alarm = self._alarm_clock.changed
        self._namespaces: dict[str, Namespace[Any]] = {}
        self.app = app
        self.env: Any = None
        """What objects get as ``env``."""
        self._use(app)

    def _use(self, app: App) -> None:
        self._durability.use(app)
        self._namespaces = {
            name: Namespace(self, name, self._randomness) for name in app.registrations
        }
        self.app = app
        self.env = app.bind(self._namespaces)
        self._lives.use(app.registrations, self.env)

    async def start(self) -> None:
        """Run the alarms that are overdue, and those to come."""
        await self._alarm_clock.start()

    async def run_due_alarms(self) -> int:
        """Run what is due now; how many objects had alarms. For tests."""
        return await self._alarm_clock.run_due()

    async def replace_app(self, app: App) -> None:
        """Go on with other classes: every object leaves memory, its sockets stay open."""
        async with self._lives.emptied(_GRACE_S):
            self._use(app)

    async def close(self, grace_s: float = _GRACE_S) -> None:
        """Refuse calls, close all sockets with 1012, and let every object leave memory."""
        await self._alarm_clock.stop()
        for sockets in self._lives.all_sockets():
            sockets.close_all(CLOSE_RESTART, "The server is being restarted.")
        await self._lives.close(grace_s)

    def __len__(self) -> int:
        """How many objects are in memory."""
        return len(self._lives.all())

    # --- looking things up --------------------------------------------------------------------

    def namespace(self, name: str) -> Namespace[DurableObject]:
        """Raises NotFoundError (``namespace_not_found``)."""
        namespace = self._namespaces.get(name)
        if namespace is None:
            raise NotFoundError(
                "There is no such namespace of objects.", code="namespace_not_found"
            )
        return namespace

    def method(self, namespace: str, name: str) -> RpcMethod:
        """Raises NotFoundError (``method_not_found``)."""
        return RpcMethods.of(self._class_of(namespace))[name]

    def _class_of(self, namespace: str) -> type[DurableObject]:
        self.namespace(namespace)
        return self.app.registrations[namespace].cls

    def list(self, namespace: str, prefix: str, limit: int, cursor: str | None) -> ObjectPage:
        """Objects that store something, in the order of their names."""
        limit = max(1, min(limit, _PAGE_MAX))
        entries = self._catalog_of(namespace).page(prefix, cursor or "", limit + 1)
        page = entries[:limit]
        more = len(entries) > limit
        infos = [self._info(each, self._durability.of(namespace)) for each in page]
        return ObjectPage(infos, page[-1].name if more else None)

    def _info(self, entry: Entry, durability: Durability) -> ObjectInfo:
        id = ObjectId(entry.key.id, entry.name)
        resident = self._lives.find(id)
        last_used, size = entry.last_used_at_ms, entry.size_bytes
        if resident is not None:
            idle_ms = int((self._clock.monotonic() - resident.ground.used_at) * 1000)
            last_used = self._clock.now_ms() - idle_ms
            size = resident.size_bytes
        return ObjectInfo(
            name=entry.name,
            id=str(id),
            created_at=iso_from_ms(entry.created_at_ms),
            last_used_at=iso_from_ms(last_used),
            size_bytes=size,
            state="hibernated" if resident is None else "awake",
            sockets=self._lives.open_sockets(id),
            durability=durability,
        )

    # --- events -------------------------------------------------------------------------------

    async def invoke(
        self,
        namespace: str,
        id: ObjectId,
        method: str,
        body: bytes,
        *,
        idempotency: Idempotency | None = None,
    ) -> Done:
        """Call a method. See `Stub.invoke`."""
        called = self.method(namespace, method)
        while True:
            resident = await self._lives.of(Address(namespace, id))
            try:
                result, bookmark, replayed = await resident.life.call(called, body, idempotency)
            except InstanceClosed:
                continue
            return Done(result, bookmark, replayed)

    async def fetch(self, namespace: str, id: ObjectId, request: Request) -> Response:
        """An HTTP request for an object. See `Stub.fetch`."""
        if not hasattr(self._class_of(namespace), "fetch"):
            raise NotFoundError(
                f"Objects of {namespace} have no fetch() handler.", code="no_fetch_handler"
            )
        while True:
            resident = await self._lives.of(Address(namespace, id))
            try:
                return await resident.life.fetch(request)
            except InstanceClosed:
                continue

    def _make_sockets(self, address: Address) -> Sockets:
        return Sockets(partial(self._socket_event, address), self._clock)

    async def _socket_event(
        self,
        address: Address,
        connection: Connection,
        event: SocketEvent,
        started: Callable[[], None],
    ) -> None:
        """See `Deliver`. An object that has no handler for it is not woken."""
        leave_event()  # that of a handler which closed the socket
        while True:
            resident = self._lives.find(address.id)
            if resident is None or not resident.is_alive:
                cls = self._class_of(address.namespace)
                if not self._lives.sockets(address).handles(cls, event):
                    connection.begin(event)
                    started()
                    return
            resident = await self._lives.of(address)  # behind the calls that came before
            try:
                await resident.life.socket_event(connection, event, started)
            except InstanceClosed:
                continue
            return

    async def _alarms(self, due: DueAlarm) -> int:
        """Run what is due of one object; how many alarms ran."""
        leave_event()  # that which set the alarm
        address = Address(due.namespace, ObjectId(due.key.id, due.name))
        if due.namespace not in self._namespaces:
            raise NotFoundError("Its class is not in the app.", code="namespace_not_found")

        async def run_event(body: Callable[[AlarmRunner], Coroutine[Any, Any, T]]) -> T:
            while True:
                resident = await self._lives.of(address)
                try:
                    run = partial(body, resident.alarm_runner)
                    value, _ = await resident.activation.run(run)
                except InstanceClosed:
                    continue
                return value

        runs = await run_due(run_event, self._report_alarm)
        resident = await self._lives.of(address)
        with contextlib.suppress(InstanceClosed):  # it settled when it went to sleep
            await resident.settle_alarms()
        return runs

    def _report_alarm(self, outcome: AlarmOutcome) -> None:
        if outcome.error is not None:
            _log.error("alarm() failed: %s", outcome.failure, exc_info=outcome.error)

    # --- for the testing kit ------------------------------------------------------------------

    def resident(self, id: ObjectId) -> Resident | None:
        """The object, if it is in memory."""
        return self._lives.find(id)

    async def hibernate(self, id: ObjectId | None = None) -> None:
        """Let one object, or all, leave memory as if they had been idle."""
        if id is None:
            await self._lives.end_all(_GRACE_S)
        elif (resident := self._lives.find(id)) is not None:
            await self._lives.sleep(resident)
