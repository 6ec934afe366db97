"""Shipment: one object's commits on their way to the bucket.

Invariants:
- One file is under way at a time, in the order of the commits; the next begins when the bucket
  has it. So what the bucket holds is always a prefix of what the commit log holds.
- A file that was tried once is tried again unchanged until its fate is known.
- Fenced is final: once another writer's file has the name of the next, nothing more is shipped
  and nothing more is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from dosql.clock import Clock, jitter
from dosql.errors import DosqlError, OutcomeUnknownError, UnavailableError
from dosql.limits import (
    REPLICA_BATCH_BYTES,
    REPLICA_COALESCE_FROM,
    REPLICA_INTERVAL_S,
    REPLICA_REFUSE_AFTER_S,
    REPLICA_RETRY_S_MAX,
    REPLICA_WAIT_S,
)
from dosql.log.records import Batch, ObjectKey
from dosql.log.waiters import Waiters
from dosql.pages import PageSet
from dosql.replica.growth import filled
from dosql.replica.image_file import ImageFile
from dosql.replica.pace import Pace
from dosql.replica.plan import RAW_LEVEL, FileInfo
from dosql.replica.replica import Fenced, Head, Replica

T = TypeVar("T")
_log = logging.getLogger("dosql.replica")


class Carrier(Protocol):
    """What a shipment needs of the node's shipper."""

    epoch: int
    clock: Clock
    pace: Pace | None
    """None: replies wait for the bucket, so that files are sent at once."""

    def is_own(self, epoch: int) -> bool:
        """Whether this data directory wrote a file of this epoch."""
        ...

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work on a thread for bucket requests."""
        ...

    async def image(self, key: ObjectKey, min_txid: int) -> ImageFile | None:
        """The whole database as it is now, as a file from ``min_txid``; None: it is gone."""
        ...

    async def catalog_reached(self, txid: int) -> None:
        """Return when the catalog's batch ``txid`` is in the bucket."""
        ...

    def shipped(self, shipment: Shipment, size: int) -> None:
        """The bucket took a file of ``size`` bytes."""
        ...

    def fenced(self, shipment: Shipment) -> None:
        """Another process has the object."""
        ...

    def dropped(self, bytes: int) -> None:
        """Part of a spool was sent, or given up."""
        ...

    def rest(self, key: ObjectKey) -> None:
        """The object sleeps: what is kept of it can be less."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    """One file."""

    max_txid: int
    timestamp_ms: int
    put: Callable[[], int]
    discard: Callable[[], None] = lambda: None


class Shipment:
    """Belongs to the event loop."""

    def __init__(
        self, key: ObjectKey, replica: Replica, carrier: Carrier, shipped_txid: int | None = None
    ) -> None:
        """``shipped_txid``: what is known to be in the bucket; None: it is to be looked up."""
        self.key = key
        self.replica = replica
        self.shipped_txid = shipped_txid
        self.logged_txid = shipped_txid or 0
        """Newest batch that the commit log has."""
        self.stalled_since: float | None = None
        """Since when, on the monotonic clock, no attempt has succeeded."""
        self.failed: DosqlError | None = None
        self.last: FileInfo | None = None
        """The newest file that this process has sent."""
        self.on_moved: Callable[[], None] = _nothing
        """`shipped_txid` moved, or it failed."""
        self._carrier = carrier
        self._spool: deque[tuple[Batch, int]] = deque()
        """Batches to be sent, with the catalog's TXID that must be in the bucket before them."""
        self._spool_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._waiters = Waiters()
        self._ended = False
        self.rests = False
        """The object sleeps, and needs no shipment once all is sent."""
        self._sent_at = carrier.clock.monotonic() - REPLICA_INTERVAL_S
        self._urge = asyncio.Event()
        """Somebody waits: do not pause."""
        self._joins = False
        """The next file takes all that waits."""

    # --- what the rest of the node sees -------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """Whether the bucket lacks something that the commit log has."""
        return self.shipped_txid is None or self.shipped_txid < self.logged_txid

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send and nobody who waits."""
        return self._task is None and not self.is_behind and not self._waiters

    @property
    def is_moving(self) -> bool:
        """Whether it is at work."""
        return self._task is not None

    @property
    def spool_bytes(self) -> int:
        """What it holds in memory."""
        return self._spool_bytes

    @property
    def refusal(self) -> DosqlError | None:
        """Why nothing may be written now if writes are to wait for the bucket."""
        since = self.stalled_since
        if since is None or self._carrier.clock.monotonic() - since < REPLICA_REFUSE_AFTER_S:
            return None
        return _REFUSAL

    def add(self, batch: Batch, catalog_txid: int) -> None:
        """The commit log has this batch."""
        self.logged_txid = batch.txid
        self._spool.append((batch, catalog_txid))
        self._spool_bytes += batch.pages.size_bytes
        self.start()

    def start(self, logged_txid: int = 0) -> None:
        """Bring the bucket up to date; ``logged_txid``: what the commit log is known to have."""
        self.logged_txid = max(self.logged_txid, logged_txid)
        if self._task is None and self.failed is None and not self._ended:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def drop_spool(self) -> None:
        """Free the memory: a whole image will be sent instead."""
        self._carrier.dropped(self._spool_bytes)
        self._spool.clear()
        self._spool_bytes = 0

    async def reached(self, txid: int, seconds: float = REPLICA_WAIT_S) -> None:
        """Return when the bucket has everything up to ``txid``.

        Raises:
            OutcomeUnknownError: ``bucket_unavailable``: not within ``seconds``; it may still be.
            DosqlError: it never will.
        """
        if self.failed is not None:
            raise self.failed.renewed()
        if self.shipped_txid is not None and self.shipped_txid >= txid:
            return
        self._urge.set()
        await self._waiters.wait(txid, seconds)

    async def end(self) -> None:
        """Stop where it is; nothing is sent any more."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.drop_spool()

    # --- the way ------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            if self.shipped_txid is None:
                await self._persist(self._look_up)
            while self.is_behind and not self._ended:
                await self._keep_pace()
                job = await self._persist(self._next_job)
                if job is None:
                    return
                try:
                    size = await self._persist(partial(self._carrier.on_thread, job.put))
                finally:
                    job.discard()
                first = self.shipped_txid or 0
                self.last = FileInfo(RAW_LEVEL, first + 1, job.max_txid, size, job.timestamp_ms)
                self._moved(job.max_txid)
                self._carrier.shipped(self, size)
        except Fenced:
            self.fail(
                UnavailableError(
                    "Another server has taken the object over.",
                    code="object_moved",
                    retry_after_s=1,
                )
            )
            self._carrier.fenced(self)
        except DosqlError as error:
            _log.error("object %s is not replicated: %s", self.key.id.hex(), error)
        except Exception:
            _log.exception("object %s is not replicated", self.key.id.hex())
        finally:
            self._task = None
            if self.rests:
                self._carrier.rest(self.key)

    async def _keep_pace(self) -> None:
        """Return when the next file may be sent."""
        pace = self._carrier.pace
        self._joins = pace is not None and len(self._spool) >= REPLICA_COALESCE_FROM
        if pace is not None and not self._joins and not pace.take():
            self._urge.clear()
            pause_s = 0.0 if self._waiters else pace.pause_s(self._sent_at)
            if pause_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._urge.wait(), pause_s)
            self._joins = True
        self._sent_at = self._carrier.clock.monotonic()

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until the bucket answers."""
        pause = 0.05
        carrier = self._carrier
        while True:
            try:
                result = await attempt()
            except (UnavailableError, OutcomeUnknownError, OSError) as error:
                if self.stalled_since is None:
                    self.stalled_since = carrier.clock.monotonic()
                    _log.warning("the bucket cannot be written: %s", error)
                await asyncio.sleep(jitter(pause / 2, pause))
                pause = min(pause * 2, REPLICA_RETRY_S_MAX)
            else:
                self.stalled_since = None
                return result

    async def _look_up(self) -> None:
        """Find out what is in the bucket already, and whether it is ours."""
        first = self._spool[0][0].txid if self._spool else self.logged_txid
        head = await self._carrier.on_thread(lambda: self.replica.head(near=max(first - 1, 0)))
        if head is None:
            self._moved(0)
            return
        if not self._carrier.is_own(head.epoch) or not await self._carrier.on_thread(
            lambda: self._agrees(head)
        ):
            raise Fenced
        self._moved(head.txid)

    def _agrees(self, head: Head) -> bool:
        """Whether the newest file of the bucket is what we have: a data directory that was put
        back to an older state carries the same epoch, and is not."""
        if head.txid > self.logged_txid:
            return False
        ours = next((batch for batch, _ in self._spool if batch.txid == head.txid), None)
        return ours is None or ours.timestamp_ms == head.timestamp_ms

    async def _next_job(self) -> _Job | None:
        """What to send next; None: there is nothing to send it from."""
        shipped = self.shipped_txid
        assert shipped is not None
        while self._spool and self._spool[0][0].txid <= shipped:
            self._shift()
        if not self._spool or self._spool[0][0].txid != shipped + 1:
            return await self._image_job(shipped + 1)
        batches = self._some()
        catalog_txid = max(txid for _, txid in batches)
        if catalog_txid:
            await self._carrier.catalog_reached(catalog_txid)
        first, last = batches[0][0], batches[-1][0]
        pages = _joined([batch.pages for batch, _ in batches])
        if first.txid == 1:
            pages = filled(pages, 0)
        replica, epoch = self.replica, self._carrier.epoch

        def put() -> int:
            return replica.put(
                pages, first.txid, last.txid, timestamp_ms=last.timestamp_ms, epoch=epoch
            )

        return _Job(last.txid, last.timestamp_ms, put)

    def _some(self) -> list[tuple[Batch, int]]:
        """The next batch; of many that wait, as many as make one file of a good size.

        A range is not fenced: another owner's fence, `N-N`, would not collide with it. So ranges
        are sent only where nobody waits for the bucket: there, the next batch begins when the
        bucket has the one before.
        """
        if not self._joins:
            return [self._spool[0]]
        some: list[tuple[Batch, int]] = []
        size = 0
        for entry in self._spool:
            size += entry[0].pages.size_bytes
            if some and size > REPLICA_BATCH_BYTES:
                break
            some.append(entry)
        return some

    async def _image_job(self, min_txid: int) -> _Job | None:
        image = await self._carrier.image(self.key, min_txid)
        if image is None:
            return None
        if image.header.max_txid < min_txid:
            image.remove()
            return None
        replica = self.replica

        def put() -> int:
            image.put(replica)
            return image.size

        return _Job(image.header.max_txid, image.header.timestamp_ms, put, image.remove)

    def _shift(self) -> None:
        batch, _ = self._spool.popleft()
        self._spool_bytes -= batch.pages.size_bytes
        self._carrier.dropped(batch.pages.size_bytes)

    def _moved(self, txid: int) -> None:
        self.shipped_txid = txid
        self.logged_txid = max(self.logged_txid, txid)
        while self._spool and self._spool[0][0].txid <= txid:
            self._shift()
        self._waiters.arrived(txid)
        self.on_moved()

    def fail(self, error: DosqlError) -> None:
        """Nothing is shipped any more, and whoever waits is told so."""
        self.failed = error
        self.drop_spool()
        self._waiters.fail(error)
        self.on_moved()


_REFUSAL = UnavailableError(
    "The bucket cannot be reached, and writes wait for it; nothing was written.",
    code="bucket_unavailable",
    retry_after_s=1,
)


def _joined(batches: list[PageSet]) -> PageSet:
    """Consecutive batches as one."""
    if len(batches) == 1:
        return batches[0]
    pages: dict[int, bytes] = {}
    for each in batches:
        pages.update(each.pages)
        if pages and max(pages) > each.commit:  # cut off: not the ones that grow there later
            pages = {pgno: page for pgno, page in pages.items() if pgno <= each.commit}
    last = batches[-1]
    return PageSet(last.page_size, last.commit, dict(sorted(pages.items())))


def _nothing() -> None:
    pass
