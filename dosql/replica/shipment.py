"""Shipment: one object's commits on their way to the bucket.

Invariants:
- One file is under way at a time, in the order of the commits; the next begins when the bucket
  has it. So what the bucket holds is always a prefix of what the commit log holds.
- A file that was tried once is tried again unchanged until its fate is known. Where that cannot
  be, the bucket is looked at again before the next.
- Fenced is final: once another writer's file has the name of the next, nothing more is shipped
  and nothing more is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec

from dosql.clock import jitter
from dosql.errors import DosqlError, OutcomeUnknownError, UnavailableError
from dosql.limits import (
    REPLICA_COALESCE_FROM,
    REPLICA_INTERVAL_S,
    REPLICA_REFUSE_AFTER_S,
    REPLICA_RETRY_S_MAX,
    REPLICA_WAIT_S,
)
from dosql.log.records import Batch, ObjectKey
from dosql.log.waiters import Waiters
from dosql.replica.carrier import Carrier
from dosql.replica.plan import FileInfo
from dosql.replica.replica import Fenced, Head, Replica
from dosql.replica.spool import Spool, joined

T = TypeVar("T")
_log = logging.getLogger("dosql.replica")
_MOVED = "object_moved"


class _Job(msgspec.Struct, frozen=True):
    """One file, or two that belong together."""

    max_txid: int
    put: Callable[[], list[FileInfo]]
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
        self._spool = Spool(carrier.dropped)
        self._newest_at = (0, 0)
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
        self._hurries = False
        """Replies wait for it: each batch is sent at once."""

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
        return self._spool.bytes

    def time_of(self, txid: int) -> int | None:
        """When the batch was committed, if it is the newest that the commit log has."""
        newest, at_ms = self._newest_at
        return at_ms if newest == txid else None

    def hurry(self, hurries: bool = True) -> None:
        """Whether replies wait for it from now on: then nothing is put off, nor joined."""
        self._hurries = hurries
        if hurries:
            self._urge.set()

    @property
    def refusal(self) -> DosqlError | None:
        """Why nothing may be written now; None also if no reply waits for it."""
        if not self._hurries:
            return None
        since = self.stalled_since
        if since is None or self._carrier.clock.monotonic() - since < REPLICA_REFUSE_AFTER_S:
            return None
        return _REFUSAL

    def add(self, batch: Batch, catalog_txid: int) -> None:
        """The commit log has this batch."""
        self.logged_txid = batch.txid
        self._newest_at = (batch.txid, batch.timestamp_ms)
        self._spool.add(batch, catalog_txid)
        self.start()

    def start(self, logged_txid: int = 0) -> None:
        """Bring the bucket up to date; ``logged_txid``: what the commit log is known to have."""
        self.logged_txid = max(self.logged_txid, logged_txid)
        if self._task is None and self.failed is None and not self._ended:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def drop_spool(self) -> None:
        """Free the memory: a whole image will be sent instead."""
        self._spool.clear()

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
            await self._persist(partial(self._carrier.catalog_known, self.key))
            if self.shipped_txid is None:
                await self._persist(self._look_up)
            while self.is_behind and not self._ended:
                await self._keep_pace()
                job = await self._persist(self._next_job)
                if job is None:
                    return
                try:
                    files = await self._persist(partial(self._carrier.on_thread, job.put))
                finally:
                    job.discard()
                self._moved(job.max_txid)
                for self.last in files:
                    self._carrier.shipped(self, self.last.size)
        except Fenced:
            self.fail(
                UnavailableError(
                    "Another server has taken the object over.",
                    code=_MOVED,
                    retry_after_s=1,
                )
            )
            self._carrier.fenced(self)
        except DosqlError as error:
            self.shipped_txid = None
            if error.code == _MOVED:
                self.fail(error)
            _log.error("object %s is not replicated: %s", self.key.id.hex(), error)
        except Exception:
            self.shipped_txid = None
            _log.exception("object %s is not replicated", self.key.id.hex())
        finally:
            self._task = None
            if self.rests:
                self._carrier.rest(self.key)

    async def _keep_pace(self) -> None:
        """Return when the next file may be sent."""
        pace = self._carrier.pace
        self._joins = not self._hurries and len(self._spool) >= REPLICA_COALESCE_FROM
        if not self._hurries and not self._joins and not pace.take():
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
                if isinstance(error, DosqlError) and error.code == _MOVED:
                    raise  # the catalog, and with it everything
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
        first = self._spool.first_txid or self.logged_txid
        head = await self._carrier.on_thread(lambda: self.replica.head(near=max(first - 1, 0)))
        if head is None:
            self._moved(0)
            return
        if not self._carrier.is_own(head.epoch) or not await self._carrier.on_thread(
            lambda: self._agrees(head)
        ):
            raise Fenced
        if head.is_open:  # an earlier run was killed between its two files
            await self._carrier.on_thread(partial(self._close_gap, head))
        self._moved(max(head.txid, head.reach))

    def _close_gap(self, head: Head) -> None:
        epoch = self._carrier.epoch
        self.replica.fence(head, timestamp_ms=head.timestamp_ms, epoch=epoch)

    def _agrees(self, head: Head) -> bool:
        """Whether the newest file of the bucket is what we have: a data directory that was put
        back to an older state carries the same epoch, and is not."""
        txid = max(head.txid, head.reach)
        if txid > self.logged_txid:
            return False
        ours = self._spool.find(txid)
        return ours is None or ours.timestamp_ms == head.timestamp_ms

    async def _next_job(self) -> _Job | None:
        """What to send next; None: there is nothing to send it from."""
        shipped = self.shipped_txid
        assert shipped is not None
        self._spool.forget(shipped)
        if self._spool.first_txid != shipped + 1:
            return await self._image_job(shipped + 1)
        # Not several where replies wait: there, the next begins when the bucket has the one before.
        some, catalog_txid = self._spool.next(several=self._joins)
        if catalog_txid:
            await self._carrier.catalog_reached(catalog_txid)
        jobs = [self._put_of([each]) for each in some] if len(some) == 2 else [self._put_of(some)]
        return _Job(some[-1].txid, lambda: [file for put in jobs for file in put()])

    def _put_of(self, batches: list[Batch]) -> Callable[[], list[FileInfo]]:
        """Send consecutive batches as one. What costs two files anyway is better not joined."""
        first, last = batches[0].txid, batches[-1]
        pages = joined([batch.pages for batch in batches])
        return partial(
            self.replica.put,
            pages.filled(0) if first == 1 else pages,
            first,
            last.txid,
            timestamp_ms=last.timestamp_ms,
            epoch=self._carrier.epoch,
        )

    async def _image_job(self, min_txid: int) -> _Job | None:
        image = await self._carrier.image(self.key, min_txid)
        if image is None:
            return None
        return _Job(image.header.reach, partial(image.put, self.replica), image.remove)

    def _moved(self, txid: int) -> None:
        self.shipped_txid = txid
        self.logged_txid = max(self.logged_txid, txid)
        self._spool.forget(txid)
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


def _nothing() -> None:
    pass
