"""Maintenance: keeps WALs and the log short, and lets idle objects sleep.

One task and one timer for the whole node, whatever the number of objects; nothing runs while
nothing is written and nothing is awake.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dosql.errors import DosqlError
from dosql.host.awake import AwakeObjects
from dosql.host.file_threads import FileThreads
from dosql.host.file_upkeep import FileUpkeep
from dosql.host.memory import return_free_memory
from dosql.limits import WAL_BYTES_MAX
from dosql.log.node_log import NodeLog
from dosql.objects.instance import Instance, InstanceClosed

_log = logging.getLogger("dosql.host")
_TRIM_AFTER = 64
"""Objects that went to sleep before free memory is given back: it takes some milliseconds."""
_FEW = 2
"""So few awake objects are as good as none."""


class Maintenance:
    """Started by the host; `flushed` is its hook after every flush."""

    def __init__(
        self,
        awake: AwakeObjects,
        upkeep: FileUpkeep,
        log: NodeLog,
        file_threads: FileThreads,
        *,
        log_bytes_max: int,
        idle_s: float,
    ) -> None:
        self._awake = awake
        self._upkeep = upkeep
        self._log = log
        self._threads = file_threads
        self._log_bytes_max = log_bytes_max
        self._idle_s = idle_s
        self._checkpoints: dict[Instance, asyncio.Task[None]] = {}
        self._cut: asyncio.Task[None] | None = None
        self._sweep: asyncio.Task[None] | None = None
        self._spare: asyncio.Task[None] | None = None
        self._closed = False
        self.on_sweep: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to look after the node."""
        loop = asyncio.get_running_loop()
        self._sweep = loop.create_task(self._sweep_for_ever())
        self._spare = loop.create_task(self._prepare_spare())

    async def stop(self) -> None:
        """Finish what is under way and do no more."""
        self._closed = True
        tasks = [self._sweep, self._cut, self._spare, *self._checkpoints.values()]
        if self._sweep is not None:
            self._sweep.cancel()
        await asyncio.gather(*(task for task in tasks if task), return_exceptions=True)

    def flushed(self, instances: list[Instance]) -> None:
        """After a flush that covered ``instances``."""
        if self._closed:
            return
        for instance in instances:
            if instance.wal_bytes > WAL_BYTES_MAX and instance not in self._checkpoints:
                task = asyncio.get_running_loop().create_task(self._checkpoint(instance))
                self._checkpoints[instance] = task
        if self._log.size_bytes > self._log_bytes_max and self._cut is None:
            self._cut = asyncio.get_running_loop().create_task(self._cut_log())

    async def _checkpoint(self, instance: Instance) -> None:
        try:
            await self._upkeep.checkpoint(instance)
        except (DosqlError, InstanceClosed):
            _log.debug("a checkpoint was put off", exc_info=True)
        finally:
            del self._checkpoints[instance]

    async def _cut_log(self) -> None:
        """Until the log is half its limit: free its oldest segment of every object."""
        try:
            while self._log.size_bytes > self._log_bytes_max // 2 and not self._closed:
                keys = self._log.oldest_keys()
                for key in keys:
                    await self._upkeep.make_durable(key)
                await self._threads.run(self._log.cut)
                if not keys:
                    break
            await self._prepare_spare()
        except (DosqlError, InstanceClosed, OSError):
            _log.warning("the commit log could not be cut; it is tried again", exc_info=True)
        finally:
            self._cut = None

    async def _prepare_spare(self) -> None:
        try:
            await self._threads.run(self._log.prepare_spare)
        except OSError:
            _log.warning("no spare log segment could be prepared", exc_info=True)

    async def _sweep_for_ever(self) -> None:
        pause_s = max(0.05, min(self._idle_s / 4, 15.0))
        trimmed = 0
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._awake.sleep_idle(self._idle_s)
                evictions = self._awake.statistics.evictions
                if evictions - trimmed >= _TRIM_AFTER or (
                    evictions != trimmed and len(self._awake) <= _FEW
                ):
                    trimmed = evictions
                    await self._threads.run(return_free_memory)
                self.on_sweep()
            except Exception:
                _log.exception("idle objects could not be put to sleep")
