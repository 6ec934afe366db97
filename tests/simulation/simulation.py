"""One run: the seed chooses what happens next, until everything has come to rest.

At every moment something may happen to any object: a call, a message, an alarm, one of its waits
ending, a flush, a failing disk, a sleep, a crash of the whole process. What is checked is said in
the README of this folder.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from dosql import App, Request
from dosql.errors import DosqlError, ObjectResetError, OutcomeUnknownError, UnavailableError
from dosql.log.records import ObjectKey
from dosql.testing.clock import ManualClock
from dosql.testing.memory_host import MemoryHost
from dosql.testing.memory_log import Image, MemoryLog
from dosql.testing.sockets import MemorySocket, SocketClosed
from tests.simulation.loop import SimulationLoop
from tests.simulation.scripts import Script
from tests.simulation.subject import Subject
from tests.simulation.world import EXPECTED, SeededRandomness, World

ACTIONS_MIN, ACTIONS_MAX = 10, 45
WEIGHTS = {
    "go on": 30,
    "call": 16,
    "flush": 10,
    "say": 6,
    "advance": 5,
    "fetch": 3,
    "peek": 3,
    "connect": 5,
    "write": 3,
    "acknowledge": 3,
    "hibernate": 4,
    "crash": 1.2,
    "fail the disk": 0.8,
    "hang up": 1,
    "rush": 6,
}
RUSH = ("go on", "go on", "say", "say", "say", "say", "call", "flush", "reset", "reset")
"""What may happen at the same moment."""
ROUNDS = 4
"""Of the loop, within which it happens."""


class Socket:
    """A client's end, and what it has sent."""

    def __init__(self, name: str, tag: str, socket: MemorySocket) -> None:
        self.name = name
        self.tag = tag
        self.socket = socket
        self.sent = 0


class Simulation:
    """Everything that one seed decides."""

    make_host = MemoryHost

    def __init__(self, loop: SimulationLoop, world: World) -> None:
        self.loop = loop
        self.world = world
        self.random = world.random
        self.names = world.names
        self.clock = world.clock
        self.log = MemoryLog(empty_catalog())
        self.log.hold()
        world.use(self.log)
        self.sockets: list[Socket] = []
        self.calls: dict[str, asyncio.Task[None]] = {}
        self._stubs: dict[str, Any] = {}

    async def run(self) -> None:
        """Raises Violation."""
        await self._start()
        for _ in range(self.random.randint(ACTIONS_MIN, ACTIONS_MAX)):
            word = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            await getattr(self, f"_{word.replace(' ', '_')}")()
            await self._settle()
        await self._finish()
        await self._close()

    async def _start(self) -> None:
        app = App(vars={"WORLD": self.world})
        app.durable_object(Subject)
        self.host = self.make_host(
            app,
            log=self.log,
            clock=self.clock,
            timers=self.clock,
            randomness=SeededRandomness(self.random),
        )
        self._stubs.clear()
        await self.host.start()

    async def _settle(self) -> None:
        await self.loop.settle()
        for socket in self.sockets:
            for frame in socket.socket.receive_nowait():
                position, _, rest = str(frame).partition(" ")
                self.world.check_visible([socket.name, int(position)], f"the frame that {rest}")
        self.sockets = [each for each in self.sockets if each.socket.close_code is None]
        self.world.check_all(self.loop.failures)

    def _stub(self, name: str) -> Any:
        stub = self._stubs.get(name)
        if stub is None:
            stub = self._stubs[name] = self.host.env.SUBJECT.get_by_name(name)
        return stub

    # --- events -------------------------------------------------------------------------------

    async def _call(self) -> None:
        name = self.random.choice(self.names)
        who = self.world.next_name("call")
        script = self.world.scripts.draw()
        self._begin(name, who, self._stub(name).run(who, script), script)

    async def _peek(self) -> None:
        name = self.random.choice(self.names)
        who = self.world.next_name("peek")
        self._begin(name, who, self._stub(name).peek(who))

    async def _fetch(self) -> None:
        name = self.random.choice(self.names)
        who = self.world.next_name("fetch")
        script = self.world.scripts.draw(1)

        async def fetch() -> int:
            response = await self._stub(name).fetch("/", body=json.dumps([who, script]))
            return int(await response.text())

        self._begin(name, who, fetch(), script)

    def _begin(self, name: str, who: str, call: Any, script: object = "") -> None:
        self.world.note(f"{who} -> {name} {script}")

        async def run() -> None:
            try:
                position = await call
            except DosqlError as error:
                self._refused(name, who, error)
            else:
                self.world.check_visible([name, position], f"the answer to {who}")
                self.world.note(f"{who} is answered: {position}")

        task = self.calls[who] = asyncio.get_running_loop().create_task(run())

        def ended(_: asyncio.Task[None]) -> None:
            del self.calls[who]
            if not task.cancelled() and (error := task.exception()) is not None:
                self.world.violated(f"{who}: {error!r}")

        task.add_done_callback(ended)

    def _refused(self, name: str, who: str, error: DosqlError) -> None:
        kind, _, text = error.message.partition(": ")
        if error.code == "object_error" and kind == "ValueError":
            self.world.check_visible([name, int(text)], f"the error {who}")
        elif error.code == "object_error" and kind == "AskedForError":
            pass
        elif error.code not in EXPECTED:
            raise self.world.violated(f"{who} ended with {error.code}: {error}") from error
        self.world.note(f"{who} ends with {error.code}: {error}")

    async def _connect(self) -> None:
        name = self.random.choice(self.names)
        tag = self.world.next_name("socket")
        self.world.note(f"{tag} -> {name}")
        request = Request(f"/?tag={tag}", headers={"upgrade": "websocket"})
        call = asyncio.ensure_future(self._stub(name).fetch(request))
        self.calls[tag] = call

        def connected(task: asyncio.Future[Any]) -> None:
            del self.calls[tag]
            if not task.cancelled() and task.exception() is None:
                socket = MemorySocket(task.result().web_socket)
                self.sockets.append(Socket(name, tag, socket))

        call.add_done_callback(connected)

    async def _say(self) -> None:
        if not self.sockets:
            return
        await self._say_by(self.random.choice(self.sockets), self.world.scripts.draw(1))

    async def _say_by(self, socket: Socket, script: Script) -> None:
        who = self.world.next_name("message")
        socket.sent += 1
        self.world.note(f"{who} -> {socket.name} by {socket.tag} {script}")
        try:
            await socket.socket.send(json.dumps([who, socket.sent, script]))
        except SocketClosed:
            self.world.note(f"{socket.tag} is closed")

    async def _hang_up(self) -> None:
        if self.sockets:
            socket = self.sockets.pop(self.random.randrange(len(self.sockets)))
            self.world.note(f"{socket.tag} hangs up")
            await (socket.socket.close() if self.random.random() < 0.5 else socket.socket.vanish())

    # --- time ---------------------------------------------------------------------------------

    async def _go_on(self) -> None:
        if self.world.pauses:
            self.world.go_on(self.random.choice(list(self.world.pauses)))

    async def _advance(self) -> None:
        seconds = self.random.choice([0.001, 0.06, 2.5, 2.5, 12.0, 31.0])
        self.world.note(f"{seconds} s pass")
        self.world.passes(seconds)
        self.clock.advance(seconds)

    async def _rush(self) -> None:
        """Several things happen before the first of them has come to an end."""
        words = self.random.choices(RUSH, k=self.random.randint(2, 5))
        self.world.note(f"at once: {', '.join(words)}")

        async def act(word: str, rounds: int) -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)
            await getattr(self, f"_{word.replace(' ', '_')}")()

        await asyncio.gather(*(act(word, self.random.randrange(ROUNDS)) for word in words))

    async def _reset(self) -> None:
        """As by a fault of the object's own code."""
        name = self.random.choice([*self.names, *(each.name for each in self.sockets)])
        resident = self.host.objects.resident(self._stub(name).id)
        if resident is not None and resident.is_alive:
            self.world.note(f"{name} is reset")
            self.world.loses(name)
            resident.activation.reset(ObjectResetError("The simulation wants it."))

    # --- the disk and the process -------------------------------------------------------------

    async def _flush(self) -> None:
        self.log.flush()

    async def _write(self) -> None:
        self.log.write()

    async def _acknowledge(self) -> None:
        self.log.acknowledge()

    async def _fail_the_disk(self) -> None:
        unknown = self.random.random() < 0.5
        self.world.note("the disk fails")
        self.world.counts["disk failures"] += 1
        if unknown:
            self.log.write()
        kind = OutcomeUnknownError if unknown else UnavailableError
        grounds = {name: self.host.ground(self._stub(name).id) for name in self.names}
        self.log.fail(kind("The disk failed.", code=None if unknown else "commit_failed"))
        if self.host.catalog_ground is None:
            self.world.loses_catalog()
        for name, ground in grounds.items():
            if ground is not None and ground.broken is not None:
                self.world.loses(name)

    async def _hibernate(self) -> None:
        name = self.random.choice(self.names)
        self.world.note(f"{name} may sleep")
        task = asyncio.ensure_future(self.host.hibernate(self._stub(name).id))
        task.add_done_callback(lambda _: None)

    async def _crash(self) -> None:
        self.world.note("crash")
        log = self.log.crash()
        self.world.use(log)
        self.world.crashes()
        self.sockets.clear()
        await self.host.kill(ObjectResetError("The process is gone."))
        await self.loop.settle()
        self.log = log
        self.log.hold()
        await self._start()

    # --- the end ------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Let everything come to rest, and look at what is left."""
        self.world.note("the end begins")
        self.world.quiet = True
        self.log.release()
        await self._rest()
        if self.calls:
            raise self.world.violated(f"never answered: {list(self.calls)}")
        await self._last_words()
        for _ in range(200):
            if not self.world.alarms_left():
                break
            await self._next_timer()
        if left := self.world.alarms_left():
            raise self.world.violated(f"alarms that never ran: {left}")
        if self.random.random() < 0.5:
            await self.host.hibernate()
        else:
            await self._crash()
            self.log.release()
        await self._look_at_all()

    async def _last_words(self) -> None:
        """One more message by every socket that is open: it shows whether one before was lost."""
        for socket in list(self.sockets):
            await self._say_by(socket, [])
        await self._rest()

    async def _close(self) -> None:
        """Stop the host cleanly. It may wait for time to pass."""
        closing = asyncio.ensure_future(self.host.close())
        for _ in range(50):
            await self.loop.settle()
            if closing.done():
                await closing
                return
            self.clock.advance(1.0)
        raise self.world.violated("the host does not stop")

    async def _rest(self) -> None:
        """Until nothing waits any more but for time; then for what time brings."""
        for _ in range(400):
            await self._settle()
            if self.world.pauses:
                await self._go_on()
            elif self.calls and self.clock.pending:
                await self._next_timer()
            else:
                return

    async def _next_timer(self) -> None:
        if self.clock.pending:
            seconds = max(0.0, self.clock.pending[0])
            self.world.passes(seconds)
            self.clock.advance(seconds)
        await self._settle()
        while self.world.pauses:
            await self._go_on()
            await self._settle()

    async def _look_at_all(self) -> None:
        for name in self.names:
            self._begin(name, self.world.next_name("look"), self._stub(name).peek("look"))
        await self._rest()
        if self.calls:
            raise self.world.violated(f"never answered: {list(self.calls)}")


@cache
def empty_catalog() -> Mapping[ObjectKey, Image]:
    """What is durable before the first call: the same for all seeds, and made once."""
    clock = ManualClock()
    loop = SimulationLoop(clock)
    log = MemoryLog()

    async def start() -> None:
        await MemoryHost(App(), log=log, clock=clock, timers=clock).start()
        await loop.settle()

    loop.run_until_complete(start())
    loop.close()
    return log.images
