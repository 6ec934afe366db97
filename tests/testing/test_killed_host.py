"""A host in memory that was killed leaves nobody waiting."""

from __future__ import annotations

import asyncio

from dosql import App, DurableObject
from dosql.errors import UnavailableError
from dosql.testing.clock import ManualClock
from dosql.testing.memory_host import MemoryHost
from dosql.testing.memory_log import MemoryLog


class Note(DurableObject):
    """Stores something, and forgets it."""

    def write(self) -> None:
        self.ctx.storage.kv.put("k", 1)

    def wipe(self) -> None:
        self.ctx.storage.delete_all()


async def test_an_object_on_its_way_out_does_not_wait_for_a_flush_that_cannot_come() -> None:
    app, clock, log = App(), ManualClock(), MemoryLog()
    app.durable_object(Note)
    host = MemoryHost(app, log=log, clock=clock, timers=clock)
    await host.start()
    note = host.env.NOTE.get_by_name("a")
    await note.write()
    await note.wipe()
    log.hold()
    leaving = asyncio.ensure_future(host.hibernate(note.id))
    await clock.settle()
    assert not leaving.done(), "its end is being made durable"
    await host.kill(UnavailableError("killed"))
    await leaving
