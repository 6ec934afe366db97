"""Batches, and a carrier for one shipment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dosql.clock import Clock
from dosql.log.records import Batch, ObjectKey
from dosql.pages import PageSet
from dosql.replica.bucket import Bucket
from dosql.replica.image_file import ImageFile, make_raw_image
from dosql.replica.layout import Layout
from dosql.replica.pace import Pace
from dosql.replica.plan import RAW_LEVEL
from dosql.replica.replica import Replica
from dosql.replica.shipment import Shipment

T = TypeVar("T")
KEY = ObjectKey(b"\x01" * 32, 7)
PAGE = 512
OURS, THEIRS = (5 << 24) + 1, (6 << 24) + 1


def page(txid: int) -> bytes:
    """A page that names its batch."""
    return txid.to_bytes(4, "big") * (PAGE // 4)


def batch(txid: int, key: ObjectKey = KEY, *, timestamp_ms: int = 0) -> Batch:
    """Two pages: the first in every batch, the second in the first only."""
    pages = {1: page(txid)} if txid > 1 else {1: page(1), 2: page(1)}
    return Batch(key, txid, timestamp_ms or 1_000 * txid, PageSet(PAGE, 2, pages))


class Alone:
    """A `Carrier`: a node with one object, whose present state the test knows."""

    def __init__(self, bucket: Bucket, clock: Clock, scratch: Path, *, paced: bool) -> None:
        self.epoch = OURS
        self.clock = clock
        self.pace = Pace(clock)
        self.sizes: list[int] = []
        self.fences = 0
        self.images: list[tuple[int, int]] = []
        """First and last TXID of each image that was asked for."""
        self.newest = 0
        """The state of the object, for images; 0: it is gone."""
        self.catalog = asyncio.Event()
        self.catalog.set()
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(4)
        self.shipment = Shipment(KEY, Replica(bucket, Layout("objects/x")), self)
        self.shipment.hurry(not paced)

    def add(self, *txids: int, catalog_txid: int = 0) -> None:
        """The commit log has these batches."""
        for txid in txids:
            self.newest = txid
            self.shipment.add(batch(txid), catalog_txid)

    def spans(self) -> list[tuple[int, int]]:
        """Of the files in the bucket."""
        replica = self.shipment.replica
        return [(file.min_txid, file.max_txid) for file in replica.listing(RAW_LEVEL)]

    async def close(self) -> None:
        await self.shipment.end()
        self._threads.shutdown()

    # --- as the shipment sees it --------------------------------------------------------------

    def is_own(self, epoch: int) -> bool:
        return epoch >> 24 == OURS >> 24

    async def on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def image(self, key: ObjectKey, min_txid: int) -> ImageFile | None:
        self.images.append((min_txid, self.newest))
        if not self.newest:
            return None
        database = self._scratch / "database"
        database.write_bytes(page(self.newest) + page(1))
        return make_raw_image(
            database,
            self._scratch / "image.ltx",
            page_size=PAGE,
            min_txid=min_txid,
            txid=self.newest,
            timestamp_ms=1_000 * self.newest,
            epoch=self.epoch,
        )

    async def catalog_known(self, key: ObjectKey) -> None:
        pass

    async def catalog_reached(self, txid: int) -> None:
        await self.catalog.wait()

    def shipped(self, shipment: Shipment, size: int) -> None:
        self.sizes.append(size)

    def fenced(self, shipment: Shipment) -> None:
        self.fences += 1

    def dropped(self, bytes: int) -> None:
        pass
