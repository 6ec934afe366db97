"""ColdTier: the bucket's side of the host: all that goes there, and what is known of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from dosql.clock import Clock, Timers
from dosql.durability import Durability
from dosql.errors import DosqlError
from dosql.host.behind import Behind
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.compaction import Compaction
from dosql.host.file_threads import FileThreads
from dosql.host.object_files import Copy
from dosql.host.retrieval import Retrieval
from dosql.host.seeds import Seeds
from dosql.host.takeover import Takeover, moved
from dosql.limits import REPLICA_DRAIN_S
from dosql.log.disk import Disk
from dosql.log.node_log import NodeLog
from dosql.log.records import Drop, ObjectKey, Record
from dosql.replica.image_file import ImageFile, make_raw_image
from dosql.replica.link import Link, write_link
from dosql.replica.shipment import Shipment
from dosql.replica.shipper import ReplicationStatistics, Shipper

_log = logging.getLogger("dosql.host")


class ColdTier:
    """Blocking methods are for file threads; all others belong to the event loop."""

    def __init__(
        self,
        settings: ColdTierSettings,
        *,
        epoch: int,
        behind: Behind,
        catalog: ObjectKey,
        scratch: Path,
        log: NodeLog,
        disk: Disk,
        clock: Clock,
        timers: Timers,
        file_threads: FileThreads,
    ) -> None:
        self.settings = settings
        self._behind = behind
        self._catalog = catalog
        self._scratch = scratch
        self._clock = clock
        self._threads = file_threads
        self._images = 0
        self._in_vain = False
        """The bucket was waited for at the end, and did not answer."""
        self.copy: Callable[[ObjectKey, Path], Awaitable[Copy | None]] = _no_copies
        self.catalog_durability: Durability = "local"
        """How the catalog is sent, whoever opens it."""
        self.on_void: Callable[[ObjectKey, DosqlError], None] = lambda key, error: None
        """An object's local state is void: whoever has it open must let go of it."""
        self.shipper = Shipper(
            settings.bucket,
            prefix=settings.prefix,
            directory=settings.directory,
            epoch=epoch,
            clock=clock,
            catalog=catalog,
            make_image=self._make_image,
            on_fenced=self._fenced,
        )
        self.shipper.on_shipped = self._shipped
        self.retrieval = Retrieval(
            settings,
            self.shipper,
            Takeover(clock, epoch),
            behind=behind,
            catalog=catalog,
            scratch=scratch,
            log=log,
            disk=disk,
        )
        self.compaction = Compaction(
            self.shipper,
            scratch=scratch,
            clock=clock,
            timers=timers,
            retention=settings.retention,
        )

    # --- files: blocking ----------------------------------------------------------------------

    def link(self, key: ObjectKey, parent: ObjectKey, txid: int) -> None:
        """The object, which nobody has written yet, begins as ``parent`` was after this batch."""
        path = self.shipper.replica(parent).layout.prefix
        write_link(self.shipper.replica(key), Link(path, txid))

    def lacks(self, key: ObjectKey) -> None:
        """The bucket has nothing of the object yet, and the commit log does not say so. Durable
        when this returns."""
        self._behind.add([key])

    def cut(self, key: ObjectKey, txid: int) -> None:
        """The commit log is about to forget what it has of the object up to ``txid``."""
        shipment = self.shipper.find(key)
        if shipment is not None and (shipment.shipped_txid or 0) < txid:
            self._behind.add([key])

    # --- what is known of the bucket ----------------------------------------------------------

    def replica_url(self, key: ObjectKey) -> str:
        """What ``litestream restore`` takes for the object."""
        path = self.shipper.replica(key).layout.prefix
        return f"{self.settings.bucket.url}/{path}{self.settings.url_options}"

    async def replicated_txid(self, key: ObjectKey, txid: int) -> int:
        """The newest batch in the bucket, which is asked only if nobody here knows.
        ``txid``: what the commit log has; 0: nothing here."""
        known = self.shipper.shipped_txid(key)
        if known is not None:
            return known
        if txid and key not in self._behind and self.shipper.find(key) is None:
            return txid
        replica = self.shipper.replica(key)
        head = await self.shipper.on_thread(lambda: replica.head(near=max(txid - 1, 0)))
        return 0 if head is None else head.txid

    # --- awake objects ------------------------------------------------------------------------

    def woke(self, key: ObjectKey, txid: int, durability: Durability) -> Shipment | None:
        """The object was opened and holds ``txid``. What its replies wait for beside the log;
        None: nothing. Nobody waits for the catalog itself: see `catalog_reached`."""
        found = self.retrieval.found(key)
        shipment = self.shipper.find(key)
        if shipment is not None:
            shipment.rests = False
        if shipment is None and found is not None:
            shipment = self.shipper.shipment(key, found)
        if key == self._catalog:
            durability = self.catalog_durability
            if shipment is None:  # the bucket did not answer
                shipment = self.shipper.shipment(key)
                shipment.start(txid)
        if durability == "local":
            if shipment is not None:
                shipment.hurry(False)
            return None
        shipment = shipment or self.shipper.shipment(key)
        shipment.hurry()
        if shipment.shipped_txid != txid:
            shipment.start(txid)
        return None if key == self._catalog else shipment

    async def catalog_reached(self, txid: int) -> None:
        """Return when the catalog's batch ``txid`` is in the bucket.

        Raises:
            OutcomeUnknownError: ``bucket_unavailable``: that takes too long.
            DosqlError: it never will be.
        """
        await self.shipper.catalog_reached(txid)

    def placed(self, key: ObjectKey, txid: int) -> None:
        """The file of a new object was put in its place, past the commit log."""
        shipment = self.shipper.shipment(key, 0)
        shipment.hurry(self.settings.durability == "bucket")
        shipment.start(txid)

    def slept(self, key: ObjectKey) -> None:
        """The object went to sleep."""
        self.shipper.rest(key)

    def appended(self, records: Iterable[Record]) -> None:
        """The commit log has these."""
        everything = list(records)
        for record in everything:
            if isinstance(record, Drop):
                self.compaction.dropped(record.key)
        self.shipper.appended(everything)

    def _shipped(self, shipment: Shipment, size: int) -> None:
        if shipment.last is not None:
            self.compaction.shipped(shipment.key, shipment.last)
        if not shipment.is_behind and shipment.key in self._behind:
            self._threads.submit(self._behind.remove, shipment.key)

    def _fenced(self, key: ObjectKey) -> None:
        _log.error("object %s was taken over by another server", key.id.hex())
        self.compaction.forget(key)
        self.retrieval.void(key)
        self.on_void(key, moved("Another server has taken the object over."))

    async def _make_image(self, key: ObjectKey, min_txid: int) -> ImageFile | None:
        self._images += 1
        name = f"image-{self._images}-{key.filename}"
        copy = await self.copy(key, self._scratch / name)
        if copy is None:
            return None
        target = copy.path.with_suffix(".ltx")
        shipment = self.shipper.find(key)
        made_ms = None if shipment is None else shipment.time_of(copy.txid)
        at_ms = self._clock.now_ms() if made_ms is None else made_ms
        try:
            return await self.shipper.on_thread(
                lambda: make_raw_image(
                    copy.path,
                    target,
                    page_size=copy.page_size,
                    min_txid=min_txid,
                    txid=copy.txid,
                    timestamp_ms=at_ms,
                    epoch=self.shipper.epoch,
                )
            )
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            copy.path.unlink(missing_ok=True)

    # --- the whole ----------------------------------------------------------------------------

    async def complete(self, key: ObjectKey, seeds: Seeds) -> bool:
        """Send what the commit log had of an object whose file is of no use, so that it can be
        restored. False: it had not all that the bucket lacks.

        Raises UnavailableError, OutcomeUnknownError: the bucket does not answer.
        """
        batches = seeds.batches.get(key, [])
        if not batches:
            return False
        replica = self.shipper.replica(key)
        head = await self.shipper.on_thread(replica.head)
        if head is None or not head.txid < batches[-1].txid or head.txid + 1 < batches[0].txid:
            return False
        shipment = self.shipper.shipment(key)
        self.shipper.appended(batches)
        await shipment.reached(batches[-1].txid)
        return True

    def start(
        self, seeds: Seeds, txid_of: Callable[[ObjectKey], int], durability: Durability
    ) -> None:
        """Send what an earlier run did not, as if all were of this mode. ``txid_of``: what the
        file of an object holds."""
        for key in self._behind.all():
            try:
                txid = txid_of(key)
            except DosqlError:
                txid = 0  # damaged: the log may have enough of it all the same
            batches = seeds.batches.get(key, [])
            if not txid and not batches:
                continue
            shipment = self.shipper.shipment(key)
            shipment.hurry(durability == "bucket")
            for batch in batches:
                self.shipper.appended([batch])
            shipment.start(txid)
        self.shipper.appended([Drop(key) for key in seeds.dropped])

    def statistics(self) -> ReplicationStatistics:
        """How far the bucket is behind."""
        return self.shipper.statistics()

    def refusing(self) -> int:
        """How many objects refuse writes, because their replies wait for the bucket."""
        return len(self.shipper.refusals().keys() - {self._catalog})

    def check(self) -> None:
        """Raises UnavailableError if next to nothing can be served: another server has everything,
        or the server's own mode is that writes wait for the bucket, which does not answer."""
        self.retrieval.check()
        if self.settings.durability == "bucket":
            for refusal in self.shipper.refusals().values():
                raise refusal.renewed()

    async def drain(self) -> None:
        """Wait a moment for the bucket to have everything, and note what it lacks."""
        left = await self.shipper.drain(0.1 if self._in_vain else REPLICA_DRAIN_S)
        self._in_vain = bool(left)
        if left:
            _log.warning("the bucket lacks commits of %d objects; a restart sends them", len(left))
            await self._threads.run(partial(self._behind.add, left))

    async def close(self) -> None:
        """Stop; what is behind is noted."""
        await self.compaction.close()
        await self.shipper.close()


async def _no_copies(key: ObjectKey, target: Path) -> Copy | None:
    raise AssertionError("nobody can copy objects yet")
