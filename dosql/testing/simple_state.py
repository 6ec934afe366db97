"""SimpleState: a ``ctx`` for a durable object that a unit test makes itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dosql.clock import Clock, LoopTimers, SystemClock, Timers
from dosql.ids import IdFactory
from dosql.log.records import ObjectKey
from dosql.objects.activation import Activation
from dosql.objects.alarm_store import AlarmStore
from dosql.objects.alarms import Alarms
from dosql.objects.connections import Connection, SocketEvent
from dosql.objects.durable_object import DurableObject
from dosql.objects.kv_store import KeyValueStore
from dosql.objects.sockets import Sockets
from dosql.objects.sql import Sql
from dosql.objects.state import ObjectState
from dosql.objects.storage import ObjectStorage
from dosql.testing.clock import ManualClock
from dosql.testing.memory import MemoryGround


class SimpleState(ObjectState):
    """``room = Room(SimpleState(), {})``: real SQLite in memory, real storage, no host.

    Methods are called directly, so nothing keeps two calls that a test makes at once apart, and
    no alarm runs: for events, gates, alarms and sleeping use `dosql.testing.harness`. It needs a
    running event loop: make the test ``async``.
    """

    def __init__(self, clock: ManualClock | None = None, *, name: str = "test") -> None:
        time: Clock = clock or SystemClock()
        timers: Timers = clock or LoopTimers()
        id = IdFactory("test").from_name(name)
        ground = MemoryGround(ObjectKey(id.raw, 1), clock=time)
        activation = Activation(ground, clock=time, timers=timers)
        store = AlarmStore(activation.access, time, has_handler=lambda: True)
        storage = ObjectStorage(
            activation,
            entries=KeyValueStore(activation.access),
            sql=Sql(activation.access),
            alarms=Alarms(store, time),
            alarm_store=store,
        )
        sockets = Sockets(self._deliver, time)
        sockets.activate(activation.emit)
        super().__init__(id, activation, storage, sockets)
        self.object: DurableObject | None = None
        """Who gets the messages of sockets: a test that sends any sets it."""

    async def settled(self) -> None:
        """Return when the critical sections that the constructor asked for have ended, and all
        that was written is durable."""

        async def nothing() -> None:
            """The section behind those that were asked for before."""

        await self._activation.sections.run(nothing)
        await self._activation.synced()

    async def _deliver(
        self, connection: Connection, event: SocketEvent, started: Callable[[], None]
    ) -> None:
        async def run() -> None:
            started()
            for handler in self._sockets.begin(self.object, connection, event):
                outcome: Any = handler()
                if outcome is not None:
                    await outcome

        await self._activation.run(run)
