"""CatalogInstance: the catalog, awake as long as the host runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dosql.durability import Durability
from dosql.errors import DosqlError, UnavailableError
from dosql.host.awake import AwakeObjects
from dosql.host.catalog import CATALOG_KEY, CATALOG_MIGRATIONS
from dosql.host.cold_tier import ColdTier
from dosql.objects.instance import Instance

_log = logging.getLogger("dosql.host")


class CatalogInstance:
    """Call it for the instance.

    It is opened as the server's own mode wants it, and goes to the bucket as the strictest of all
    namespaces does. Who waits for that is decided by each `Catalog`: those of namespaces of the
    mode ``local`` do not.
    """

    def __init__(self, awake: AwakeObjects, cold: ColdTier | None, durability: Durability) -> None:
        self._awake = awake
        self._cold = cold
        self._durability: Durability = durability
        self._wake: asyncio.Task[Instance] | None = None
        awake.pin(CATALOG_KEY)

    async def open(self) -> None:
        """Wake it for the first time. Raises what keeps it from being opened."""
        await self._get()

    def replicate_as(self, durability: Durability) -> None:
        """The strictest mode of all namespaces, from now on."""
        if self._cold is None:
            return
        self._cold.catalog_durability = durability
        instance = self._awake.peek(CATALOG_KEY)
        if instance is not None:
            self._cold.woke(CATALOG_KEY, instance.logged_txid, durability)

    def arrival(self, durability: Durability) -> Callable[[int], Awaitable[None]] | None:
        """What a namespace of this mode waits for beside the log; None: nothing."""
        return self._cold.catalog_reached if self._cold and durability == "bucket" else None

    def __call__(self) -> Instance:
        """Raises UnavailableError: it broke, and is being woken again, or is another server's."""
        instance = self._awake.peek(CATALOG_KEY)
        if instance is None:
            if self._cold is not None:
                self._cold.retrieval.check()
            if self._wake is None or self._wake.done():
                self._wake = asyncio.get_running_loop().create_task(self._get())
                self._wake.add_done_callback(_retrieve)
            raise UnavailableError(
                "The server is recovering from a failure; nothing was written.",
                code="object_recovering",
                retry_after_s=1,
            )
        return instance

    async def _get(self) -> Instance:
        return await self._awake.get(CATALOG_KEY, CATALOG_MIGRATIONS, self._durability)

    def check(self) -> None:
        """Raise the reason if it cannot be read."""
        instance = self()
        instance.db.set_deadline(None)
        try:
            instance.db.query("SELECT 1")
        except DosqlError:
            instance.after_work()
            raise


def _retrieve(task: asyncio.Task[Instance]) -> None:
    """Whoever comes next tries again; that it failed is in the log."""
    if not task.cancelled() and task.exception() is not None:
        _log.warning("the catalog could not be opened", exc_info=task.exception())
