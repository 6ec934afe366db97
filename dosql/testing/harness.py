"""Harness: an app's objects in memory, for tests that send them events.

Everything but the disk and the network is what a server runs: the gates, the alarm clock, the
catalog, hibernation. Time stands still until the test moves it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from dosql.errors import ObjectResetError
from dosql.fetch import Request
from dosql.headers import Headers, HeadersInit
from dosql.host.lives import Address
from dosql.host.objects import Objects
from dosql.host.resident import Resident
from dosql.host.stub import Stub
from dosql.ids import ObjectId
from dosql.objects.app import App
from dosql.objects.durable_object import DurableObject
from dosql.testing.clock import ManualClock
from dosql.testing.memory_host import MemoryHost
from dosql.testing.memory_log import MemoryLog
from dosql.testing.sockets import MemorySocket

ObjectT = TypeVar("ObjectT", bound=DurableObject)
T = TypeVar("T")


@asynccontextmanager
async def harness(app: App, *, clock: ManualClock | None = None) -> AsyncIterator[Harness]:
    """Run the app's objects in memory until the block ends.

    Raises:
        InvalidRequestError: ``app_invalid``: what `dosql serve` would refuse at its start.
    """
    app.check()
    running = Harness(app, clock or ManualClock())
    await running._start(MemoryLog())
    try:
        yield running
    finally:
        await running._host.close()


class Harness:
    """Made by `harness`."""

    def __init__(self, app: App, clock: ManualClock) -> None:
        self.clock = clock
        self._app = app
        self._sockets: list[MemorySocket] = []
        self._host: MemoryHost

    @property
    def env(self) -> Any:
        """As the objects' own: ``h.env.ROOM.get_by_name("lobby")``. After a `crash` it is another
        one, with new stubs."""
        return self._host.env

    @property
    def objects(self) -> Objects:
        """The host's face for objects, as the server has it."""
        return self._host.objects

    # --- time ---------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Let time pass: alarms run when they are due, timeouts expire."""
        await self.clock.pass_time(seconds)

    async def run_due_alarms(self) -> int:
        """Run the alarms that are due now; in how many objects there were any."""
        return await self._host.objects.run_due_alarms()

    # --- the disk -----------------------------------------------------------------------------

    def hold_writes(self) -> None:
        """Nothing becomes durable any more: whatever would show a new write has to wait."""
        self._host.log.hold()

    def release_writes(self) -> None:
        """Let everything become durable, and follow by itself again."""
        self._host.log.release()

    # --- lives --------------------------------------------------------------------------------

    async def hibernate(self, stub: Stub[Any] | None = None) -> None:
        """Let the object, or all of them, leave memory as if they had been idle. Sockets stay.

        An object with an event under way, or a socket that it accepted without hibernation,
        stays in memory.
        """
        await self._host.hibernate(None if stub is None else stub.id)

    async def evict(self, stub: Stub[Any]) -> None:
        """End the object's life in memory at once. What is not durable is undone, events under
        way fail with ObjectResetError, its sockets are closed."""
        ground = self._host.ground(stub.id)
        if ground is not None:
            ground.break_(ObjectResetError("The object was evicted by the test."))
        await self.clock.settle()

    async def crash(self) -> None:
        """End the process as a power loss does, and start another over what is durable.

        Calls under way fail with ObjectResetError, sockets are lost (1006). Stubs from before
        lead nowhere: take new ones from `env`.
        """
        log = self._host.log.crash()
        for socket in self._sockets:
            socket.cut()
        self._sockets.clear()
        await self._host.kill(ObjectResetError("The process has crashed."))
        await self._start(log)

    async def _start(self, log: MemoryLog) -> None:
        self._host = MemoryHost(self._app, log=log, clock=self.clock, timers=self.clock)
        await self._host.start()

    # --- reaching into objects ----------------------------------------------------------------

    async def connect(
        self, stub: Stub[Any], path: str = "/", *, headers: HeadersInit = None
    ) -> MemorySocket:
        """Open a WebSocket, as a client of ``/objects/{namespace}/{name}{path}`` does.

        Raises:
            AssertionError: the object's ``fetch`` did not answer with a WebSocket.
        """
        upgrade = Headers(headers)
        upgrade.add("upgrade", "websocket")
        response = await stub.fetch(Request(path, headers=upgrade))
        if response.web_socket is None:
            text = await response.text()
            raise AssertionError(f"no WebSocket, but {response.status} {text[:200]}")
        socket = MemorySocket(response.web_socket)
        self._sockets.append(socket)
        return socket

    def instance_of(self, stub: Stub[ObjectT]) -> ObjectT | None:
        """The Python object behind the stub, if it is in memory: to look at, not to call."""
        resident = self._host.objects.resident(stub.id)
        if resident is None or not resident.is_alive:
            return None
        return cast(ObjectT, resident.life.object)

    async def run_in_durable_object(
        self, stub: Stub[ObjectT], function: Callable[[ObjectT], Awaitable[T] | T]
    ) -> T:
        """Call ``function`` with the Python object, as an event of it; wakes it if need be."""
        resident = await self._wake(stub)

        async def run() -> T:
            outcome: Any = function(cast(ObjectT, resident.life.object))
            if inspect.isawaitable(outcome):
                outcome = await outcome
            return cast(T, outcome)

        value, _ = await resident.activation.run(run)
        return value

    def list_ids(self, namespace: str) -> list[ObjectId]:
        """The ids of all objects of the namespace that store something, named ones first."""
        return self._host.ids(namespace)

    async def _wake(self, stub: Stub[Any]) -> Resident:
        address = Address(stub._namespace, stub.id)
        return await self._host.objects._lives.of(address)
