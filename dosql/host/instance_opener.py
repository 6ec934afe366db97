"""InstanceOpener: from an object's file, and what is missing of it, to an awake instance."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from dosql.clock import Clock
from dosql.durability import Durability
from dosql.host.cold_tier import ColdTier
from dosql.host.file_threads import FileThreads
from dosql.host.object_files import ObjectFiles
from dosql.log.group_commit import GroupCommit
from dosql.log.records import ObjectKey
from dosql.objects.instance import Budgets, Instance
from dosql.sqlite.migrations import Migration


class InstanceOpener:
    """Of a host. Whoever opens sees to it that an object is opened once."""

    def __init__(
        self,
        files: ObjectFiles,
        *,
        commits: GroupCommit,
        cold: ColdTier | None,
        clock: Clock,
        workers: Executor,
        file_threads: FileThreads,
        budgets: Budgets,
    ) -> None:
        self._files = files
        self._commits = commits
        self._cold = cold
        self._clock = clock
        self._workers = workers
        self._threads = file_threads
        self._budgets = budgets

    async def open(
        self,
        key: ObjectKey,
        migrations: tuple[Migration, ...] | None,
        durability: Durability,
        on_broken: Callable[[Instance], None],
    ) -> Instance:
        """``migrations``: None leaves the database as it is; ``durability``: what replies wait
        for.

        Raises:
            CorruptError: its stored bytes are damaged.
            MigrationError: its schema could not be brought up to date.
        """
        opened = partial(self._files.open, key, migrations, durability)
        path, db, txid = await self._threads.run(opened)
        return Instance(
            key,
            path,
            db,
            txid,
            commits=self._commits,
            clock=self._clock,
            workers=self._workers,
            budgets=self._budgets,
            on_broken=on_broken,
            replication=self._cold.woke(key, txid, durability) if self._cold is not None else None,
        )
