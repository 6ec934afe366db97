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
import shutil
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dosql.clock import Clock
from dosql.errors import DosqlError, ObjectResetError, UnavailableError
from dosql.host.grounds import Leaving, Nobody
from dosql.host.object_files import Copy, ObjectFiles
from dosql.log.disk import disk_error
from dosql.log.group_commit import GroupCommit
from dosql.log.node_log import NodeLog
from dosql.log.records import ObjectKey
from dosql.objects.ground import Past
from dosql.objects.instance import Budgets, Instance, InstanceClosed
from dosql.sqlite.migrations import Migration

T = TypeVar("T")
if TYPE_CHECKING:
    from dosql.host.cold_tier import ColdTier

_log = logging.getLogger("dosql.host")


@dataclass
class AwakeStatistics:
    """Counts since the start."""

    wakes: int = 0
    evictions: int = 0
    broken: int = 0


class AwakeObjects:
    """All instances of a host."""

    def __init__(
        self,
        files: ObjectFiles,
        *,
        log: NodeLog,
        commits: GroupCommit,
        clock: Clock,
        workers: Executor,
        file_threads: Executor,
        budgets: Budgets,
        count_max: int,
    ) -> None:
        self._files = files
        self._log = log
        self._commits = commits
        self._clock = clock
        self._workers = workers
        self._file_threads = file_threads
        self._budgets = budgets
        self._count_max = count_max
        self._awake: OrderedDict[ObjectKey, Instance] = OrderedDict()
        self._moving: dict[ObjectKey, asyncio.Task[Instance | None]] = {}
        self._pinned: set[ObjectKey] = set()
        self._copies: dict[Path, Copy] = {}
        self.statistics = AwakeStatistics()
        self.on_sleep: Callable[[Instance], None] = lambda _: None
        self.leaving: Leaving = Nobody()
        self.past: Past | None = None
        """What is kept of the past of objects; None: nothing."""
        self.closing = False
        """Nothing keeps an object awake any more."""
        self._cold: ColdTier | None = None

    def replicate(self, cold: ColdTier) -> None:
        """From now on commits go to a bucket as well, and what the disk lacks comes from there."""
        self._cold = self._files.cold = cold
        cold.copy = self.copy
        cold.on_void = self._void

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

    async def ground(self, key: ObjectKey) -> Instance:
        """See `Grounds`: an object without a schema of ours."""
        return await self.get(key, None)

    def expect_new(self, key: ObjectKey) -> None:
        """See `Grounds`."""
        if self._cold is not None:
            self._cold.expect_new(key)

    def placed(self, key: ObjectKey, txid: int) -> None:
        """The file of a new object that sleeps was put there, and holds ``txid``."""
        if self._cold is not None:
            self._cold.placed(key, txid)

    def used(self, key: ObjectKey) -> None:
        """See `Grounds`."""
        self.find(key)

    async def get(self, key: ObjectKey, migrations: tuple[Migration, ...] | None) -> Instance:
        """The object, woken if need be. ``migrations``: None leaves its database as it is.

        Raises:
            CorruptError: its stored bytes are damaged.
            MigrationError: its schema could not be brought up to date.
        """
        while True:
            instance = self.find(key)
            if instance is not None:
                return instance
            move = self._move_of(key)
            if move is None:
                await self._make_room()
                if key in self._awake or self._move_of(key) is not None:
                    continue
                move = self._move(key, self._wake(key, migrations))
            woken = await asyncio.shield(move)
            if woken is not None and not woken.closed:
                return woken

    def _move_of(self, key: ObjectKey) -> asyncio.Task[Instance | None] | None:
        """The move of this object that is still under way."""
        move = self._moving.get(key)
        if move is not None and move.done():  # its callback has yet to run
            del self._moving[key]
            return None
        return move

    def pin(self, key: ObjectKey) -> None:
        """Never put this object to sleep to make room."""
        self._pinned.add(key)

    def _move(
        self, key: ObjectKey, coroutine: Coroutine[Any, Any, Instance | None]
    ) -> asyncio.Task[Instance | None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._moving[key] = task

        def ended(_: asyncio.Task[Instance | None]) -> None:
            if self._moving.get(key) is task:
                del self._moving[key]
            if not task.cancelled():
                task.exception()  # whoever waits gets it too; nobody else needs to hear of it

        task.add_done_callback(ended)
        return task

    async def _wake(self, key: ObjectKey, migrations: tuple[Migration, ...] | None) -> Instance:
        loop = asyncio.get_running_loop()
        try:
            path, db, txid = await loop.run_in_executor(
                self._file_threads, self._files.open, key, migrations
            )
        except OSError as error:
            raise disk_error(error) from error
        instance = Instance(
            key,
            path,
            db,
            txid,
            commits=self._commits,
            clock=self._clock,
            workers=self._workers,
            budgets=self._budgets,
            on_broken=self._on_broken,
            replication=self._cold.woke(key, txid) if self._cold is not None else None,
        )
        # The catalog's changes must be in the log with, or before, the commits they announce.
        instance.holds = key not in self._pinned
        instance.past = self.past
        self._awake[key] = instance
        self.statistics.wakes += 1
        instance.after_work()  # what the migrations committed goes to the log
        return instance

    async def _make_room(self) -> None:
        while len(self._awake) + len(self._moving) >= self._count_max:
            victim = next((each for each in self._awake.values() if self._may_sleep(each)), None)
            if victim is None:
                moves = [each for each in self._moving.values() if not each.done()]
                if not moves:
                    return  # all are busy: rather one too many than a call refused
                await asyncio.wait(moves, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0)  # let it be taken off the list
            else:
                await self.sleep(victim)

    def _may_sleep(self, instance: Instance) -> bool:
        return (
            instance.key not in self._pinned
            and self._move_of(instance.key) is None
            and not instance.turns.busy
            and not instance.pins
            and not instance.is_awaited
            and not self.leaving.keeps_awake(instance.key)
        )

    # --- sleeping -----------------------------------------------------------------------------

    async def sleep(self, instance: Instance) -> None:
        """Put the object to sleep; calls that come meanwhile wake it again."""
        move = self._move_of(instance.key)
        if move is None and self._awake.get(instance.key) is instance:
            move = self._move(instance.key, self._put_to_sleep(instance))
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
            self.on_sleep(instance)
            try:
                if instance.wal_bytes:
                    await self.on_file_thread(instance.checkpoint)
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
            await self.remove_files(key)
        except DosqlError:
            _log.warning("an empty object could not be removed", exc_info=True)

    async def discard(self, key: ObjectKey) -> None:
        """Close the object without a checkpoint, because its files are about to go.

        Until `forget` they may still be needed: a wake redoes the object from the log.
        """
        while (move := self._move_of(key)) is not None:
            await asyncio.wait([move])
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

    def forget(self, key: ObjectKey) -> None:
        """The object is gone."""
        self._files.forget(key)

    async def remove_files(self, key: ObjectKey) -> None:
        """Remove what there is of an object that is gone."""
        await self.on_file_thread(lambda: self._files.remove(key))

    def _on_broken(self, instance: Instance) -> None:
        key = instance.key
        if self._awake.get(key) is instance:
            del self._awake[key]
        self._files.distrust(key)
        if self._cold is not None and instance.broken is not None:
            self._cold.broke(key, instance.broken)
        self.statistics.broken += 1
        if isinstance(instance.broken, ObjectResetError):  # by its own code, or a fault of it
            _log.warning("object %s: %s", key.id.hex(), instance.broken)
        else:
            _log.error("object %s broke: %s", key.id.hex(), instance.broken)
        earlier = self._move_of(key)

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

        self._move(key, replace())

    # --- durable files ------------------------------------------------------------------------

    async def make_durable(self, key: ObjectKey) -> None:
        """Checkpoint and sync the object's file, so that the log need not keep its batches."""
        while (move := self._move_of(key)) is not None:
            await asyncio.wait([move])
        instance = self._awake.get(key)
        txid: int | None = None
        if instance is None:
            position = self._log.position()
            if self._files.is_distrusted(key):
                await self._move(key, self._redo_asleep(key))
        else:
            await instance.turns.enter()
            try:
                instance.check_open()
                await instance.flush()
                position, txid = self._log.position(), instance.logged_txid
                await self._checkpoint(instance)
            finally:
                instance.turns.leave()
        try:
            await self.on_file_thread(lambda: self._files.sync(key, txid, position))
        finally:
            if self._files.is_distrusted(key):
                await self._give_up(key)

    async def _give_up(self, key: ObjectKey) -> None:
        """The object's file cannot be trusted any more: whoever has it open must let go of it."""
        while (move := self._move_of(key)) is not None:
            await asyncio.wait([move])
        instance = self._awake.get(key)
        if instance is not None:
            instance.break_(
                UnavailableError("The object's file could not be synced.", code="object_recovering")
            )

    async def _redo_asleep(self, key: ObjectKey) -> None:
        await self.on_file_thread(lambda: self._files.redo(key))

    async def _checkpoint(self, instance: Instance) -> None:
        try:
            if instance.key in self._pinned:  # the catalog is read on the loop, outside turns
                instance.checkpoint()
            else:
                await self.on_file_thread(instance.checkpoint)
        except DosqlError:
            instance.after_work()
            raise

    async def checkpoint(self, instance: Instance) -> None:
        """Move the object's WAL into its file because it has grown long."""
        await instance.turns.enter()
        try:
            instance.check_open()
            await instance.flush()
            await self._checkpoint(instance)
        finally:
            instance.turns.leave()

    async def copy(self, key: ObjectKey, target: Path) -> Copy | None:
        """A copy of the object's database file as of its newest commit in the log. None: there is
        none, or nothing that could be used.

        Raises what reading and writing files raises.
        """
        while True:
            while (move := self._move_of(key)) is not None:
                await asyncio.wait([move])
            instance = self._awake.get(key)
            if instance is None:
                await self._move(key, self._copy_asleep(key, target))
                return self._copies.pop(target, None)
            await instance.turns.enter()
            try:
                instance.check_open()
                await instance.flush()
                await self._checkpoint(instance)
                txid = instance.logged_txid
                await self.on_file_thread(partial(shutil.copyfile, instance.path, target))
                return Copy(target, txid, instance.db.page_size)
            except InstanceClosed:
                if self._awake.get(key) is instance:
                    return None  # the host is gone
            finally:
                instance.turns.leave()

    async def _copy_asleep(self, key: ObjectKey, target: Path) -> None:
        copy = await self.on_file_thread(lambda: self._files.copy(key, target))
        if copy is not None:
            self._copies[target] = copy

    def _void(self, key: ObjectKey, error: DosqlError) -> None:
        """What the disk has of the object must not be used any more."""
        self._files.distrust(key)
        instance = self._awake.get(key)
        if instance is not None:
            instance.break_(error)

    def txid(self, key: ObjectKey) -> int:
        """The newest durable batch of the object, awake or not."""
        instance = self._awake.get(key)
        if instance is not None:
            return instance.logged_txid
        try:
            return self._files.txid(key)
        except OSError as error:
            raise disk_error(error) from error

    async def settled(self) -> None:
        """Return when nothing is on its way in or out."""
        while moves := [each for each in self._moving.values() if not each.done()]:
            await asyncio.wait(moves)

    async def on_file_thread(self, work: Callable[[], T]) -> T:
        """Run file work off the loop; it is never abandoned half-way.

        Raises:
            UnavailableError, QuotaError: for an OSError.
        """
        future = asyncio.get_running_loop().run_in_executor(self._file_threads, work)
        try:
            return await asyncio.shield(future)
        except OSError as error:
            raise disk_error(error) from error
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
