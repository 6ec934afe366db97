"""The grounds of a host in memory: wakes each object once, and puts it to sleep when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from dosql.clock import Clock
from dosql.durability import Durability
from dosql.errors import DosqlError
from dosql.host.grounds import Leaving, Nobody
from dosql.log.records import ObjectKey
from dosql.testing.memory import MemoryGround
from dosql.testing.memory_log import MemoryLog


class MemoryGrounds:
    """`dosql.host.grounds.Grounds` over a `MemoryLog`. Nothing goes to sleep by itself."""

    def __init__(self, log: MemoryLog, clock: Clock) -> None:
        self.log = log
        self.leaving: Leaving = Nobody()
        self._clock = clock
        self._awake: dict[ObjectKey, MemoryGround] = {}
        self._moving: dict[ObjectKey, asyncio.Task[None]] = {}
        self._killed: DosqlError | None = None

    def __len__(self) -> int:
        """How many objects are awake."""
        return len(self._awake)

    def peek(self, key: ObjectKey) -> MemoryGround | None:
        """The ground, if the object is awake and whole."""
        return self._awake.get(key)

    def all(self) -> list[MemoryGround]:
        """Every awake object's, in the order in which they woke."""
        return list(self._awake.values())

    async def ground(self, key: ObjectKey, durability: Durability = "local") -> MemoryGround:
        """See `Grounds`; here everything waits for the same `MemoryLog`."""
        await asyncio.sleep(0)  # the file of a real one is opened on a thread
        if self._killed is not None:
            raise type(self._killed)(self._killed.message, code=self._killed.code)
        while (ground := self._awake.get(key)) is None:
            move = self._move_of(key)
            if move is None:
                ground = MemoryGround(
                    key, log=self.log, clock=self._clock, on_broken=self._on_broken
                )
                self._awake[key] = ground
                break
            await asyncio.shield(move)
        return ground

    def expect_new(self, key: ObjectKey) -> None:
        """See `Grounds`: there is nothing else to ask."""

    def used(self, key: ObjectKey) -> None:
        """See `Grounds`: nothing to do, for nothing sleeps by itself."""

    async def sleep_now(self, key: ObjectKey) -> None:
        """See `Grounds`."""
        move = self._move_of(key)
        ground = self._awake.get(key)
        if move is None and ground is not None:
            move = self._move(key, self._put_to_sleep(ground))
        if move is not None:
            await asyncio.shield(move)

    def kill(self, error: DosqlError) -> None:
        """End every object's life, and wake none any more, as the end of the process does."""
        self._killed = error
        self.log.end(error)
        for ground in self.all():
            ground.break_(error)

    async def settled(self) -> None:
        """Return when no object is on its way in or out."""
        while moves := [move for move in self._moving.values() if not move.done()]:
            await asyncio.wait(moves)

    def _move_of(self, key: ObjectKey) -> asyncio.Task[None] | None:
        move = self._moving.get(key)
        if move is not None and move.done():
            del self._moving[key]
            return None
        return move

    def _move(self, key: ObjectKey, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._moving[key] = asyncio.get_running_loop().create_task(coroutine)
        return task

    async def _put_to_sleep(self, ground: MemoryGround) -> None:
        await self.leaving.before_sleep(ground.key)
        await ground.turns.enter(bounded=False)
        try:
            try:
                await ground.durable(ground.bookmark.txid)
            except DosqlError:
                return  # it broke, and is being replaced
            if ground.closed or ground.broken is not None or ground.pins:
                return
            ceases = self.leaving.leave(ground.key)
            del self._awake[ground.key]
            ground.close()
            if ceases:
                with contextlib.suppress(DosqlError):  # it goes on to exist, and is empty
                    dropped = self.leaving.cease(ground.key)
                    if dropped is not None:
                        await dropped.wait()
        finally:
            ground.turns.leave()

    def _on_broken(self, ground: MemoryGround) -> None:
        key = ground.key
        if self._awake.get(key) is ground:
            del self._awake[key]
        earlier = self._move_of(key)

        async def replace() -> None:
            if earlier is not None:
                await asyncio.wait([earlier])
            await ground.turns.enter(bounded=False)  # whoever has it lets go of it first
            ground.turns.leave()
            if not ground.closed:
                ground.close()

        self._move(key, replace())
