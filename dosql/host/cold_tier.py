"""ColdTier: the bucket's side of the host: what is brought from there, and what goes there.

Whether an object's file can be used is decided when it is opened, one of three ways: *trust* what
is on the disk, *complete* the bucket from it, or *restore* it from the bucket. Never guessed: what
another server has taken over is void here, and what the bucket never got is never replaced by
something older.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dosql.clock import Clock, Timers
from dosql.errors import CorruptError, DosqlError, UnavailableError
from dosql.host.behind import Behind
from dosql.host.compaction import Compaction
from dosql.host.object_files import Copy
from dosql.host.seeds import Seeds
from dosql.limits import REPLICA_DRAIN_S
from dosql.log.disk import Disk
from dosql.log.node_log import NodeLog
from dosql.log.position import position_path, write_position
from dosql.log.records import Drop, ObjectKey, Record
from dosql.log.redo import damaged_path, remove_wal
from dosql.replica.bucket import Bucket
from dosql.replica.history import check_database, write_state
from dosql.replica.image_file import ImageFile, make_image
from dosql.replica.layout import Layout
from dosql.replica.link import Link, read_link, write_link
from dosql.replica.plan import FileInfo
from dosql.replica.replica import Fenced, Head, Replica
from dosql.replica.retention import RetentionSettings
from dosql.replica.shipment import Shipment
from dosql.replica.shipper import ReplicationStatistics, Shipper

_log = logging.getLogger("dosql.host")
Durability = Literal["local", "bucket"]
_FENCE_ATTEMPTS = 100
"""To take an object over from a server that writes to it at this moment."""


@dataclass(frozen=True, slots=True)
class ColdTierSettings:
    """Where copies go, and whether replies wait for them."""

    bucket: Bucket
    prefix: str = "objects/"
    """What all keys begin with."""
    directory: bool = False
    """Whether the bucket is a directory of this machine: then files lie where Litestream looks
    for them in one."""
    durability: Durability = "local"
    url_options: str = ""
    """What Litestream needs behind the URL of a replica, from the ``?`` on."""
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    """For how long states can be restored."""


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
        file_threads: Executor,
    ) -> None:
        self.settings = settings
        self._behind = behind
        self._catalog = catalog
        self._scratch = scratch
        self._log = log
        self._disk = disk
        self._clock = clock
        self._file_threads = file_threads
        self._epoch = epoch
        self._fresh: set[ObjectKey] = set()
        self._verified: set[ObjectKey] = set()
        self._voided: set[ObjectKey] = set()
        self._suspect: set[ObjectKey] = set()
        """Objects in whose files SQLite found damage."""
        self._brought: dict[ObjectKey, int] = {}
        """What `bring` found in the bucket, until the object is awake."""
        self._images = 0
        self._in_vain = False
        """The bucket was waited for at the end, and did not answer."""
        self.replaced = False
        """Another server has taken over the catalog, and with it everything."""
        self.copy: Callable[[ObjectKey, Path], Awaitable[Copy | None]] = _no_copies
        self.on_void: Callable[[ObjectKey, DosqlError], None] = lambda key, error: None
        """An object's local state is void: whoever has it open must let go of it."""
        self.shipper = Shipper(
            settings.bucket,
            prefix=settings.prefix,
            directory=settings.directory,
            epoch=epoch,
            clock=clock,
            paced=settings.durability == "local",
            catalog=catalog,
            make_image=self._make_image,
            on_fenced=self._fenced,
        )
        self.shipper.on_shipped = self._shipped
        self.compaction = Compaction(
            self.shipper,
            scratch=scratch,
            clock=clock,
            timers=timers,
            retention=settings.retention,
        )

    # --- opening: blocking --------------------------------------------------------------------

    def expect_new(self, key: ObjectKey) -> None:
        """The key was made a moment ago: the bucket need not be asked for it."""
        self._fresh.add(key)

    def is_void(self, key: ObjectKey) -> bool:
        """Whether what the disk has of the object is to be replaced."""
        return key in self._voided

    def broke(self, key: ObjectKey, error: DosqlError) -> bool:
        """The object failed. Whether the next opening looks for damage in its file, which it had
        no reason to do before."""
        if error.code != CorruptError.default_code or key in self._suspect:
            return False
        self._suspect.add(key)
        return True

    def _is_whole(self, key: ObjectKey, path: Path) -> bool:
        """Blocking: look for damage. SQL can provoke the error without any."""
        remove_wal(self._disk, path)
        try:
            check_database(path)
        except DosqlError as error:
            _log.error("object %s is damaged: %s", key.id.hex(), error)
            return False
        self._suspect.discard(key)
        return True

    def bring(self, key: ObjectKey, path: Path, txid: int) -> int | None:
        """See to it that the file is the one to use, before it is opened. ``txid``: what it
        holds, 0 if it is missing. What the file now holds if it was brought from the bucket; None:
        it is as it was.

        Raises:
            UnavailableError: the bucket must be asked, and cannot be; or another server has taken
                everything over.
        """
        if self.replaced:
            raise _moved("Another server has taken over this bucket.")
        if key in self._fresh and txid == 0:
            self._fresh.discard(key)
            self._brought[key] = 0
            return None
        usable = txid > 0 and path.exists() and not damaged_path(path).exists()
        usable = usable and key not in self._voided
        usable = usable and (key not in self._suspect or self._is_whole(key, path))
        waits = self.settings.durability == "bucket"
        if usable and (not waits or key in self._verified):
            return None
        replica = self.shipper.replica(key)
        files = None if usable else replica.files()  # all that a restore needs to know
        head = replica.head(near=txid - 1) if files is None else replica.head_of(files)
        own = head is not None and self.shipper.is_own(head.epoch)
        void = key in self._voided or (head is not None and not own)
        if not usable and not void and self._may_lack(key, txid, head):
            raise self._incomplete(key)
        if head is None:
            origin = None if usable else read_link(replica)
            if origin is not None:
                return self._begin_branch(key, path, origin)
            self._brought[key] = 0
            self._verified.add(key)
            return None
        if usable and own and head.txid <= txid:
            self._verified.add(key)
            self._brought[key] = head.txid
            return None
        if not usable and own and key not in self._voided and head.txid < txid:
            return None  # the bucket has less than was acknowledged: an operator must decide
        return self._restore(key, path, replica, head, files)

    def _restore(
        self,
        key: ObjectKey,
        path: Path,
        replica: Replica,
        head: Head,
        files: list[FileInfo] | None,
    ) -> int:
        """Replace the file with what the bucket has, and make the object ours."""
        _log.info("object %s is restored from the bucket", key.id.hex())
        temporary = self._scratch / f"restore-{key.filename}"
        try:
            state = self._fetch(replica, temporary, files=files)
            if not self.shipper.is_own(head.epoch) or head.txid != state.txid:
                try:
                    state = self._fence(replica, state)
                except Fenced:  # somebody writes: end that first, then fetch what came of it
                    state = self._take_over(replica, state)
                    self._fetch(replica, temporary, state.txid)
            txid = state.txid
            self._place(key, temporary, path, txid)
        finally:
            temporary.unlink(missing_ok=True)
        self._behind.remove(key)
        self._voided.discard(key)
        self._suspect.discard(key)
        self._verified.add(key)
        self._brought[key] = txid
        return txid

    def link(self, key: ObjectKey, parent: ObjectKey, txid: int) -> None:
        """Blocking: the object, which nobody has written yet, begins as ``parent`` was after this
        batch."""
        path = self.shipper.replica(parent).layout.prefix
        write_link(self.shipper.replica(key), Link(path, txid))

    def _begin_branch(self, key: ObjectKey, path: Path, link: Link) -> int:
        """Build what a branch begins as out of its parent's files."""
        parent = Replica(self.settings.bucket, Layout(link.path, self.settings.directory))
        temporary = self._scratch / f"branch-{key.filename}"
        try:
            write_state(parent, link.txid, temporary)
            check_database(temporary)
            self._place(key, temporary, path, 1)
        finally:
            temporary.unlink(missing_ok=True)
        if self.settings.durability == "bucket":
            self._brought[key] = 0
        self._verified.add(key)
        return 1

    def _may_lack(self, key: ObjectKey, txid: int, head: Head | None) -> bool:
        """Whether something was acknowledged that the bucket may not have. ``txid``: what the
        file is known to hold. A newer head of ours is a restore: what the log had was void."""
        if key not in self._behind:
            return False
        tail = max(self._behind.tails.get(key, 0), txid)
        return tail == 0 or head is None or head.txid < tail

    def _incomplete(self, key: ObjectKey) -> DosqlError:
        """The file is of no use, and the bucket may lack what was acknowledged."""
        shipment = self.shipper.find(key)
        if shipment is not None and shipment.is_moving:
            return UnavailableError(
                "The bucket is being completed, to restore the object from it.",
                code="object_recovering",
                retry_after_s=1,
            )
        return CorruptError(
            "This object's stored data is damaged, and the bucket may lack its newest commits."
        )

    def _fetch(
        self,
        replica: Replica,
        target: Path,
        txid: int | None = None,
        files: list[FileInfo] | None = None,
    ) -> Head:
        """The database as of ``txid``, or the newest; its state as a head of nobody's."""
        with target.open("w+b") as out:
            image = replica.write_image(out, txid, files=files)
        check_database(target)
        return Head(image.txid, 0, image.page_size, image.page_count, image.timestamp_ms)

    def _fence(self, replica: Replica, head: Head) -> Head:
        return replica.fence(head, timestamp_ms=self._clock.now_ms(), epoch=self._epoch)

    def _take_over(self, replica: Replica, head: Head) -> Head:
        """Fence a writer that is at work, which may be faster now and then."""
        for _ in range(_FENCE_ATTEMPTS):
            head = replica.head(near=head.txid) or head
            with contextlib.suppress(Fenced):
                return self._fence(replica, head)
        raise _moved("Another server writes to the object all the time.")

    def _place(self, key: ObjectKey, source: Path, path: Path, txid: int) -> None:
        """Put the file where the object's is. A crash on the way leaves an object that is marked
        as damaged, which is restored again: without the mark, a redo could mix the old life's
        commits, which the log may still hold, into the new file."""
        disk = self._disk
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for durable in (source, damaged_path(path)):
            file = disk.open(durable, create=durable != source)
            try:
                file.sync()
            finally:
                file.close()
        disk.sync_dir(path.parent)
        disk.unlink(position_path(path))
        disk.sync_dir(path.parent)
        remove_wal(disk, path)
        disk.rename(source, path)
        disk.sync_dir(path.parent)
        write_position(disk, path, txid, since=self._log.next_sequence())
        disk.unlink(damaged_path(path))
        disk.sync_dir(path.parent)
        self._log.checkpointed(key, 1 << 62, self._log.position())

    def cut(self, key: ObjectKey, txid: int) -> None:
        """Blocking: the commit log is about to forget what it has of the object up to ``txid``."""
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

    def woke(self, key: ObjectKey, txid: int) -> Shipment | None:
        """The object was opened and holds ``txid``. What its replies wait for beside the log;
        None: nothing."""
        brought = self._brought.pop(key, None)
        shipment = self.shipper.find(key)
        if shipment is not None:
            shipment.rests = False
        if shipment is None and brought is not None:
            shipment = self.shipper.shipment(key, brought)
        if self.settings.durability == "local":
            return None
        shipment = shipment or self.shipper.shipment(key)
        if shipment.shipped_txid != txid:
            shipment.start(txid)
        return shipment

    def placed(self, key: ObjectKey, txid: int) -> None:
        """The file of a new object was put in its place, past the commit log."""
        self._file_threads.submit(self._behind.add, [key])
        self.shipper.shipment(key, 0).start(txid)

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
            self._file_threads.submit(self._behind.remove, shipment.key)

    def _fenced(self, key: ObjectKey) -> None:
        _log.error("object %s was taken over by another server", key.id.hex())
        self.compaction.forget(key)
        self._voided.add(key)
        self._verified.discard(key)
        if key == self._catalog:
            self.replaced = True
        self.on_void(key, _moved("Another server has taken the object over."))

    async def _make_image(self, key: ObjectKey, min_txid: int) -> ImageFile | None:
        self._images += 1
        name = f"image-{self._images}-{key.filename}"
        copy = await self.copy(key, self._scratch / name)
        if copy is None:
            return None
        target = copy.path.with_suffix(".ltx")
        try:
            return await self.shipper.on_thread(
                lambda: make_image(
                    copy.path,
                    target,
                    page_size=copy.page_size,
                    min_txid=min_txid,
                    txid=copy.txid,
                    timestamp_ms=self._clock.now_ms(),
                    epoch=self._epoch,
                )
            )
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            copy.path.unlink(missing_ok=True)

    # --- the whole ----------------------------------------------------------------------------

    def start(self, seeds: Seeds, txid_of: Callable[[ObjectKey], int]) -> None:
        """Send what an earlier run did not. ``txid_of``: what the file of an object holds."""
        self.shipper.appended([Drop(key) for key in seeds.dropped])
        for key in self._behind.all():
            try:
                txid = txid_of(key)
            except DosqlError:
                txid = 0  # damaged: the log may have enough of it all the same
            batches = seeds.batches.get(key, [])
            if not txid and not batches:
                continue
            shipment = self.shipper.shipment(key)
            for batch in batches:
                self.shipper.appended([batch])
            shipment.start(txid)

    def statistics(self) -> ReplicationStatistics:
        """How far the bucket is behind."""
        return self.shipper.statistics()

    def check(self) -> None:
        """Raises UnavailableError if nothing can be served: another server has everything, or
        writes wait for a bucket that does not answer."""
        if self.replaced:
            raise _moved("Another server has taken over this bucket.")
        if self.settings.durability == "bucket":
            refusal = self.shipper.refusal()
            if refusal is not None:
                raise refusal

    async def drain(self) -> None:
        """Wait a moment for the bucket to have everything, and note what it lacks."""
        left = await self.shipper.drain(0.1 if self._in_vain else REPLICA_DRAIN_S)
        self._in_vain = bool(left)
        if left:
            _log.warning("the bucket lacks commits of %d objects; a restart sends them", len(left))
            await asyncio.get_running_loop().run_in_executor(
                self._file_threads, self._behind.add, left
            )

    async def close(self) -> None:
        """Stop; what is behind is noted."""
        await self.compaction.close()
        await self.shipper.close()


def _moved(message: str) -> UnavailableError:
    return UnavailableError(message, code="object_moved", retry_after_s=1)


async def _no_copies(key: ObjectKey, target: Path) -> Copy | None:
    raise AssertionError("nobody can copy objects yet")
