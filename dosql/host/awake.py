"""AwakeObjects: wakes each object once, caps how many are awake, puts the idle to sleep.

Invariants:
- At most one instance per key: it is awake, or on its way in or out, and whoever wants it while
  it moves waits for the same move.
- An object goes to sleep within its own turn, with nothing left that the log does not have, and
  with its WAL moved into its file. So a ``-wal`` found at a wake is never needed.
- A broken instance is replaced by one that is redone from the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from dosql.clock import Clock
from dosql.durability import Durability
from dosql.errors import DosqlError, ObjectResetError
from dosql.host.cold_tier import ColdTier
from dosql.host.file_threads import FileThreads
from dosql.host.grounds import Leaving, Nobody
from dosql.host.instance_opener import InstanceOpener
from dosql.host.moves import Moves
from dosql.host.object_files import ObjectFiles
from dosql.log.disk import disk_error
from dosql.log.records import ObjectKey
from dosql.objects.ground import Past
from dosql.objects.instance import Instance
from dosql.sqlite.migrations import Migration

_log = logging.getLogger("dosql.host")


class AwakeStatistics(msgspec.Struct):
    """Counts since the start."""

    wakes: int = 0
    evictions: int = 0
    broken: int = 0


class AwakeObjects:
    """All instances of a host."""

    def __init__(
        self,
        files: ObjectFiles,
        opener: InstanceOpener,
        *,
        cold: ColdTier | None,
        clock: Clock,
        file_threads: FileThreads,
        count_max: int,
    ) -> None:
        self._files = files
        self._opener = opener
        self._cold = cold
        self._clock = clock
        self._threads = file_threads
        self._count_max = count_max
        self._awake: OrderedDict[ObjectKey, Instance] = OrderedDict()
        self._falling_asleep: dict[ObjectKey, Instance] = {}
        self._pinned: set[ObjectKey] = set()
        self.moves = Moves()
        self.statistics = AwakeStatistics()
        self.on_sleep: Callable[[Instance], None] = lambda _: None
        self.leaving: Leaving = Nobody()
        self.past: Past | None = None
        """What is kept of the past of objects; None: nothing."""
        self.closing = False
        """Nothing keeps an object awake any more."""

    def __len__(self) -> int:
        return len(self._awake)

    def find(self, key: ObjectKey) -> Instance | None:
        """The instance, if it is awake and whole; it counts as used."""
        instance = self._awake.get(key)
        if instance is not None:
            self._awake.move_to_end(key)
        return instance

    def peek(self, key: ObjectKey) -> Instance | None:
        """`find` without counting as a use."""
        return self._awake.get(key)

    def all(self) -> list[Instance]:
        """Every awake object, the longest unused first."""
        return list(self._awake.values())

    # --- waking -------------------------------------------------------------------------------

    async def ground(self, key: ObjectKey, durability: Durability) -> Instance:
        """See `Grounds`: an object without a schema of ours."""
        return await self.get(key, None, durability)

    def expect_new(self, key: ObjectKey) -> None:
        """See `Grounds`."""
        if self._cold is not None:
            self._cold.retrieval.expect_new(key)

    def used(self, key: ObjectKey) -> None:
        """See `Grounds`."""
        self.find(key)

    async def get(
        self, key: ObjectKey, migrations: tuple[Migration, ...] | None, durability: Durability
    ) -> Instance:
        """The object, woken if need be. ``migrations``: None leaves its database as it is;
        ``durability``: what its replies wait for, if it is woken.

        Raises:
            CorruptError: its stored bytes are damaged.
            MigrationError: its schema could not be brought up to date.
        """
        while True:
            instance = self.find(key)
            if instance is not None:
                return instance
            move = self.moves.of(key)
            if move is None:
                await self._make_room()
                if key in self._awake or self.moves.of(key) is not None:
                    continue
                move = self.moves.start(key, self._wake(key, migrations, durability))
            woken = await asyncio.shield(move)
            if woken is not None and not woken.closed:
                return woken

    def pin(self, key: ObjectKey) -> None:
        """Never put this object to sleep to make room."""
        self._pinned.add(key)

    def is_pinned(self, key: ObjectKey) -> bool:
        """Whether it is one of those."""
        return key in self._pinned

    async def _wake(
        self, key: ObjectKey, migrations: tuple[Migration, ...] | None, durability: Durability
    ) -> Instance:
        instance = await self._opener.open(key, migrations, durability, self._on_broken)
        instance.past = self.past
        self._awake[key] = instance
        self.statistics.wakes += 1
        instance.after_work()  # what the migrations committed goes to the log
        return instance

    async def _make_room(self) -> None:
        while len(self._awake) + len(self.moves) >= self._count_max:
            victim = next((each for each in self._awake.values() if self._may_sleep(each)), None)
            if victim is not None:
                await self.sleep(victim)
            elif not await self.moves.next_end():
                return  # all are busy: rather one too many than a call refused

    def _may_sleep(self, instance: Instance) -> bool:
        return (
            instance.key not in self._pinned
            and self.moves.of(instance.key) is None
            and not instance.turns.busy
            and not instance.pins
            and not instance.is_awaited
            and not self.leaving.keeps_awake(instance.key)
        )

    # --- sleeping -----------------------------------------------------------------------------

    async def sleep(self, instance: Instance) -> None:
        """Put the object to sleep; calls that come meanwhile wake it again."""
        move = self.moves.of(instance.key)
        if move is None and self._awake.get(instance.key) is instance:
            move = self.moves.start(instance.key, self._put_to_sleep(instance))
        if move is not None:
            await asyncio.shield(move)

    async def sleep_now(self, key: ObjectKey) -> None:
        """See `Grounds`."""
        instance = self._awake.get(key)
        if instance is not None:
            await self.sleep(instance)

    async def sleep_idle(self, idle_s: float) -> None:
        """Put to sleep what was not used for ``idle_s``."""
        limit = self._clock.monotonic() - idle_s
        idle: list[Instance] = []
        for instance in self._awake.values():
            if instance.used_at > limit:
                break
            if self._may_sleep(instance):
                idle.append(instance)
        for instance in idle:
            if self._may_sleep(instance):
                await self.sleep(instance)

    async def _put_to_sleep(self, instance: Instance) -> None:
        await self.leaving.before_sleep(instance.key)
        if not instance.turns.try_enter():
            await instance.turns.enter()
        try:
            if instance.closed or instance.broken is not None:
                return
            try:
                await instance.flush()
            except DosqlError:
                return  # it broke, and is being replaced
            if instance.pins or (instance.is_awaited and not self.closing):
                return  # it is needed after all
            ceases = self.leaving.leave(instance.key)
            self._awake.pop(instance.key, None)
            if ceases:
                await self._end(instance)
                return
            self._falling_asleep[instance.key] = instance
            self.on_sleep(instance)
            try:
                if instance.wal_bytes:
                    await self._threads.run(instance.checkpoint)
            except DosqlError:
                _log.exception("an object could not be checkpointed")
                self._files.distrust(instance.key)
            # Not "if the WAL was not empty": a checkpoint may have emptied it long before.
            if instance.logged_txid != instance.woken_txid:
                self._files.left_at(instance.key, instance.logged_txid)
            instance.close()
            if self._cold is not None:
                self._cold.slept(instance.key)
            self.statistics.evictions += 1
        finally:
            self._falling_asleep.pop(instance.key, None)
            instance.turns.leave()

    async def _end(self, instance: Instance) -> None:
        """In its turn: an object that stores nothing ceases to exist."""
        key = instance.key
        self._files.distrust(key)
        instance.close()
        try:
            dropped = self.leaving.cease(key)
            if dropped is not None:
                await dropped.wait()
            self._files.forget(key)
            await self._threads.run(partial(self._files.remove, key))
        except DosqlError:
            _log.warning("an empty object could not be removed", exc_info=True)

    async def discard(self, key: ObjectKey) -> None:
        """Close the object without a checkpoint, because its files are about to go.

        Until then they may still be needed: a wake redoes the object from the log.
        """
        await self.moves.end_of(key)
        instance = self._awake.get(key)
        if instance is None:
            return
        await instance.turns.enter()
        try:
            if not instance.closed:
                await instance.flush()
                self._awake.pop(key, None)
                self._files.distrust(key)
                instance.close()
        finally:
            instance.turns.leave()

    def _on_broken(self, instance: Instance) -> None:
        key = instance.key
        if self._awake.get(key) is instance:
            del self._awake[key]
        self._files.distrust(key)
        if self._cold is not None and instance.broken is not None:
            self._cold.retrieval.broke(key, instance.broken)
        self.statistics.broken += 1
        if isinstance(instance.broken, ObjectResetError):  # by its own code, or a fault of it
            _log.warning("object %s: %s", key.id.hex(), instance.broken)
        else:
            _log.error("object %s broke: %s", key.id.hex(), instance.broken)
        earlier = self.moves.of(key)

        async def replace() -> None:
            if earlier is not None:
                await asyncio.wait([earlier])
            while True:
                try:
                    await instance.turns.enter()
                    break
                except DosqlError:
                    continue  # its thread or transaction still has it; nothing else may
            try:
                await instance.quiet()
                if not instance.closed:
                    instance.close()
            finally:
                instance.turns.leave()

        self.moves.start(key, replace())

    def void(self, key: ObjectKey, error: DosqlError) -> None:
        """What the disk has of the object must not be used any more."""
        self._files.distrust(key)
        instance = self._awake.get(key)
        if instance is not None:
            instance.break_(error)

    def txid(self, key: ObjectKey) -> int:
        """The newest durable batch of the object, awake or not."""
        instance = self._awake.get(key) or self._falling_asleep.get(key)
        if instance is not None:
            return instance.logged_txid
        try:
            return self._files.txid(key)
        except OSError as error:
            raise disk_error(error) from error
