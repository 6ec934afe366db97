"""FileUpkeep: makes the files of objects durable, copies and removes them, awake or not."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from dosql.errors import DosqlError, UnavailableError
from dosql.host.awake import AwakeObjects
from dosql.host.file_threads import FileThreads
from dosql.host.object_files import Copy, ObjectFiles
from dosql.log.node_log import NodeLog
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance, InstanceClosed


class FileUpkeep:
    """An object that is awake is worked on in its turn; one that sleeps is kept from waking."""

    def __init__(
        self, awake: AwakeObjects, files: ObjectFiles, log: NodeLog, threads: FileThreads
    ) -> None:
        self._awake = awake
        self._files = files
        self._log = log
        self._threads = threads
        self._copies: dict[Path, Copy] = {}

    async def make_durable(self, key: ObjectKey) -> None:
        """Checkpoint and sync the object's file, so that the log need not keep its batches."""
        moves = self._awake.moves
        await moves.end_of(key)
        instance = self._awake.peek(key)
        txid: int | None = None
        if instance is None:
            position = self._log.position()
            if self._files.is_distrusted(key):
                await moves.start(key, self._redo(key))
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
            await self._threads.run(lambda: self._files.sync(key, txid, position))
        finally:
            if self._files.is_distrusted(key):
                await self._give_up(key)

    async def _give_up(self, key: ObjectKey) -> None:
        """The object's file cannot be trusted any more: whoever has it open must let go of it."""
        await self._awake.moves.end_of(key)
        instance = self._awake.peek(key)
        if instance is not None:
            instance.break_(
                UnavailableError("The object's file could not be synced.", code="object_recovering")
            )

    async def _redo(self, key: ObjectKey) -> None:
        await self._threads.run(lambda: self._files.redo(key))

    async def _checkpoint(self, instance: Instance) -> None:
        try:
            if self._awake.is_pinned(instance.key):  # the catalog: read on the loop, outside turns
                instance.checkpoint()
            else:
                await self._threads.run(instance.checkpoint)
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
        moves = self._awake.moves
        while True:
            await moves.end_of(key)
            instance = self._awake.peek(key)
            if instance is None:
                await moves.start(key, self._copy_asleep(key, target))
                return self._copies.pop(target, None)
            await instance.turns.enter()
            try:
                instance.check_open()
                await instance.flush()
                await self._checkpoint(instance)
                txid = instance.logged_txid
                await self._threads.run(partial(shutil.copyfile, instance.path, target))
                return Copy(target, txid, instance.db.page_size)
            except InstanceClosed:
                if self._awake.peek(key) is instance:
                    return None  # the host is gone
            finally:
                instance.turns.leave()

    async def _copy_asleep(self, key: ObjectKey, target: Path) -> None:
        copy = await self._threads.run(lambda: self._files.copy(key, target))
        if copy is not None:
            self._copies[target] = copy

    async def remove(self, key: ObjectKey) -> None:
        """Remove what there is of an object that is gone."""
        self._files.forget(key)
        await self._threads.run(lambda: self._files.remove(key))
