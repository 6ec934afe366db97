"""Shipper: all shipments of a node. It follows the commit log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from dosql.clock import Clock, jitter
from dosql.errors import DosqlError, OutcomeUnknownError, UnavailableError
from dosql.limits import REPLICA_RETRY_S_MAX, REPLICA_SPOOL_BYTES_MAX
from dosql.log.records import Batch, Drop, ObjectKey, Record
from dosql.replica.bucket import Bucket
from dosql.replica.image_file import ImageFile
from dosql.replica.layout import Layout
from dosql.replica.pace import Pace
from dosql.replica.recent_files import RecentFiles
from dosql.replica.replica import Replica
from dosql.replica.shipment import Shipment

T = TypeVar("T")
_log = logging.getLogger("dosql.replica")
_THREADS = 16
"""Requests to the bucket at a time."""
_EPOCH_BITS = 24
"""Of an epoch count the starts of one data directory; the rest is the directory's own."""

MakeImage = Callable[[ObjectKey, int], Awaitable[ImageFile | None]]


class ReplicationStatistics(msgspec.Struct, frozen=True):
    """How far the bucket is behind."""

    objects_behind: int
    spool_bytes: int
    stalled_s: float
    """For how long the bucket has not answered; 0: it does."""
    files: int
    """Shipped since the start."""
    bytes: int
    """Of pages in them."""


class Shipper:
    """Belongs to one event loop."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        prefix: str,
        directory: bool,
        epoch: int,
        clock: Clock,
        catalog: ObjectKey,
        make_image: MakeImage,
        on_fenced: Callable[[ObjectKey], None],
    ) -> None:
        self.bucket = bucket
        self.epoch = epoch
        self.clock = clock
        self.pace = Pace(clock)
        self.on_shipped: Callable[[Shipment, int], None] = lambda shipment, size: None
        self.on_removed: Callable[[ObjectKey], None] = lambda key: None
        """Called on a thread when nothing is left of an object that has ceased to exist."""
        self.recent = RecentFiles()
        self._prefix = prefix
        self._directory = directory
        self._catalog = catalog
        self._make_image = make_image
        self._on_fenced = on_fenced
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dosql-bucket")
        self._shipments: dict[ObjectKey, Shipment] = {}
        self._resting: dict[ObjectKey, int] = {}
        """What is in the bucket of objects that sleep: less memory than a shipment."""
        self._removals: set[asyncio.Task[None]] = set()
        self._catalog_txid = 0
        """The catalog's newest batch in the commit log since the start."""
        self._spool_bytes = 0
        self._files = 0
        self._bytes = 0

    # --- objects ------------------------------------------------------------------------------

    def replica(self, key: ObjectKey) -> Replica:
        """The object's files in the bucket."""
        path = f"{self._prefix}{key.id.hex()}-{key.incarnation:016x}"
        return Replica(self.bucket, Layout(path, self._directory), self.recent)

    def shipment(self, key: ObjectKey, shipped_txid: int | None = None) -> Shipment:
        """The object's way to the bucket. ``shipped_txid``: where a new one is known to be."""
        shipment = self._shipments.get(key)
        if shipment is None:
            rested = self._resting.pop(key, None)
            known = rested if shipped_txid is None else shipped_txid
            shipment = Shipment(key, self.replica(key), self, known)
            self._shipments[key] = shipment
        return shipment

    def find(self, key: ObjectKey) -> Shipment | None:
        """The shipment, if the object was shipped, or should have been, since the start."""
        return self._shipments.get(key)

    def shipped_txid(self, key: ObjectKey) -> int | None:
        """The newest batch of the object in the bucket, as far as it is known here."""
        shipment = self._shipments.get(key)
        return self._resting.get(key) if shipment is None else shipment.shipped_txid

    def rest(self, key: ObjectKey) -> None:
        """The object sleeps; now, or when all of it is sent, its shipment is given up."""
        shipment = self._shipments.get(key)
        if shipment is None:
            return
        shipment.rests = True
        if shipment.is_idle and shipment.shipped_txid is not None:
            del self._shipments[key]
            self._resting[key] = shipment.shipped_txid

    def appended(self, records: Iterable[Record]) -> None:
        """The commit log has these, all in one group.

        What an object stored goes behind the catalog's newest change, as it did into the log: a
        catalog in the bucket that did not know of it would lose it with the machine.
        """
        batches: list[Batch] = []
        dropped: set[ObjectKey] = set()
        catalog_txid = self._catalog_txid
        for record in records:
            if isinstance(record, Drop):
                dropped.add(record.key)
            else:
                batches.append(record)
                if record.key == self._catalog:
                    catalog_txid = self._catalog_txid = record.txid
        for batch in batches:
            if batch.key in dropped:
                continue
            needed = 0 if batch.key == self._catalog else catalog_txid
            self._spool_bytes += batch.pages.size_bytes
            self.shipment(batch.key).add(batch, needed)
        for key in dropped:
            self._drop(key, catalog_txid)
        while self._spool_bytes > REPLICA_SPOOL_BYTES_MAX:
            largest = max(self._shipments.values(), key=lambda each: each.spool_bytes)
            if not largest.spool_bytes:
                break
            largest.drop_spool()

    def _drop(self, key: ObjectKey, catalog_txid: int) -> None:
        """The object has ceased to exist, and so do its files, once the bucket's catalog says so
        too: a server that was replaced without knowing it must not delete what is another's."""
        shipment = self._shipments.pop(key, None)
        self._resting.pop(key, None)
        replica = self.replica(key)

        def take_away() -> None:
            replica.remove()
            self.on_removed(key)

        async def remove() -> None:
            if shipment is not None:
                await shipment.end()
            pause = 0.05
            while True:
                try:
                    await self.catalog_known(key)
                    if catalog_txid:
                        await self.catalog_reached(catalog_txid)
                    await self.on_thread(take_away)
                    return
                except (UnavailableError, OutcomeUnknownError) as error:
                    if error.code == "object_moved":
                        raise
                await asyncio.sleep(jitter(pause / 2, pause))
                pause = min(pause * 2, REPLICA_RETRY_S_MAX)

        task = asyncio.get_running_loop().create_task(remove())
        self._removals.add(task)
        task.add_done_callback(self._removed)

    def _removed(self, task: asyncio.Task[None]) -> None:
        self._removals.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning(
                "the replica of an object that is gone was not removed: %s", task.exception()
            )

    # --- for shipments ------------------------------------------------------------------------

    def is_own(self, epoch: int) -> bool:
        return epoch >> _EPOCH_BITS == self.epoch >> _EPOCH_BITS

    async def on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def image(self, key: ObjectKey, min_txid: int) -> ImageFile | None:
        return await self._make_image(key, min_txid)

    async def catalog_known(self, key: ObjectKey) -> None:
        """A server that was replaced while it was away must not add to what is another's."""
        catalog = self._shipments.get(self._catalog)
        if catalog is not None and key != self._catalog:
            await catalog.reached(0)

    async def catalog_reached(self, txid: int) -> None:
        await self.shipment(self._catalog).reached(txid)

    def shipped(self, shipment: Shipment, size: int) -> None:
        self._files += 1
        self._bytes += size
        self.on_shipped(shipment, size)

    def fenced(self, shipment: Shipment) -> None:
        if shipment.key != self._catalog:  # which nobody opens again
            self._shipments.pop(shipment.key, None)
        self._on_fenced(shipment.key)

    def dropped(self, bytes: int) -> None:
        self._spool_bytes -= bytes

    # --- all of them --------------------------------------------------------------------------

    def behind(self) -> list[ObjectKey]:
        """The objects of which the bucket lacks something that it is to get."""
        return [key for key, each in self._shipments.items() if each.is_behind and not each.failed]

    def statistics(self) -> ReplicationStatistics:
        """Of this moment."""
        since = [each.stalled_since for each in self._shipments.values()]
        stalled = [each for each in since if each is not None]
        return ReplicationStatistics(
            objects_behind=len(self.behind()),
            spool_bytes=self._spool_bytes,
            stalled_s=self.clock.monotonic() - min(stalled) if stalled else 0.0,
            files=self._files,
            bytes=self._bytes,
        )

    def is_stalled(self) -> bool:
        """Whether the bucket does not answer just now."""
        return any(each.stalled_since is not None for each in self._shipments.values())

    def refusals(self) -> dict[ObjectKey, DosqlError]:
        """Why writes are refused now, of the objects whose replies wait for the bucket."""
        found = ((key, each.refusal) for key, each in self._shipments.items())
        return {key: refusal for key, refusal in found if refusal is not None}

    async def drain(self, seconds: float) -> list[ObjectKey]:
        """Wait for the bucket to have everything, but not longer; what it still lacks."""
        waits = [
            each.reached(each.logged_txid, seconds)
            for each in self._shipments.values()
            if each.is_behind
        ]
        if self._removals:
            waits.append(_bounded(set(self._removals), seconds))
        await asyncio.gather(*waits, return_exceptions=True)
        return self.behind()

    async def close(self) -> None:
        """Stop all shipments and give the threads back."""
        for task in set(self._removals):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for shipment in list(self._shipments.values()):
            await shipment.end()
        self._threads.shutdown()


async def _bounded(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    await asyncio.wait(tasks, timeout=seconds)
