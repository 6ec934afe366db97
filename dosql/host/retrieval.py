"""Retrieval: which file an object is opened from: its own, or one from the bucket.

That is decided when it is opened, one of three ways: *trust* what is on the disk, *complete* the
bucket from it, or *restore* it from the bucket. Never guessed: what another server has taken over
is void here, and what the bucket never got is never replaced by something older.
"""

from __future__ import annotations

import logging
from pathlib import Path

from dosql.durability import Durability
from dosql.errors import CorruptError, DosqlError, UnavailableError
from dosql.host.behind import Behind
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.placing import place_database
from dosql.host.takeover import Takeover, moved
from dosql.log.disk import Disk
from dosql.log.node_log import NodeLog
from dosql.log.records import ObjectKey
from dosql.log.redo import damaged_path, remove_wal
from dosql.replica.history import check_database, write_state
from dosql.replica.layout import Layout
from dosql.replica.link import Link, read_link
from dosql.replica.plan import FileInfo
from dosql.replica.replica import Head, Replica
from dosql.replica.shipper import Shipper

_log = logging.getLogger("dosql.host")


class Retrieval:
    """`bring` blocks, and is for file threads; all else belongs to the event loop."""

    def __init__(
        self,
        settings: ColdTierSettings,
        shipper: Shipper,
        takeover: Takeover,
        *,
        behind: Behind,
        catalog: ObjectKey,
        scratch: Path,
        log: NodeLog,
        disk: Disk,
    ) -> None:
        self._settings = settings
        self._shipper = shipper
        self._takeover = takeover
        self._behind = behind
        self._catalog = catalog
        self._scratch = scratch
        self._log = log
        self._disk = disk
        self._fresh: set[ObjectKey] = set()
        self._verified: set[ObjectKey] = set()
        self._voided: set[ObjectKey] = set()
        self._suspect: set[ObjectKey] = set()
        """Objects in whose files SQLite found damage."""
        self._brought: dict[ObjectKey, int] = {}
        """What was found in the bucket, until the object is awake."""
        self.replaced = False
        """Another server has taken over the catalog, and with it everything."""

    # --- what is known of objects -------------------------------------------------------------

    def expect_new(self, key: ObjectKey) -> None:
        """The key was made a moment ago: the bucket need not be asked for it."""
        self._fresh.add(key)

    def void(self, key: ObjectKey) -> None:
        """Another server has the object: what the disk has of it is to be replaced."""
        self._voided.add(key)
        self._verified.discard(key)
        if key == self._catalog:
            self.replaced = True

    def check(self) -> None:
        """Raises UnavailableError (``object_moved``) if everything is another server's."""
        if self.replaced:
            raise moved("Another server has taken over this bucket.")

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

    def found(self, key: ObjectKey) -> int | None:
        """The object was opened: what the bucket has of it, if it was asked."""
        return self._brought.pop(key, None)

    # --- opening ------------------------------------------------------------------------------

    def bring(self, key: ObjectKey, path: Path, txid: int, durability: Durability) -> int | None:
        """See to it that the file is the one to use, before it is opened. ``txid``: what it
        holds, 0 if it is missing. What the file now holds if it was brought from the bucket; None:
        it is as it was. ``durability``: where replies wait for the bucket, it is asked whose the
        object is, once; whose the catalog is, always, if it answers: a server takes over what
        another one has before it serves anything.

        Raises:
            UnavailableError: the bucket must be asked, and cannot be; or another server has taken
                everything over.
        """
        self.check()
        if key in self._fresh and txid == 0:
            self._fresh.discard(key)
            self._brought[key] = 0
            return None
        usable = txid > 0 and path.exists() and not damaged_path(path).exists()
        usable = usable and key not in self._voided
        usable = usable and (key not in self._suspect or self._is_whole(key, path))
        waits = durability == "bucket"
        if usable and (key in self._verified or not (waits or key == self._catalog)):
            return None
        replica = self._shipper.replica(key)
        try:
            files = None if usable else replica.files()  # all that a restore needs to know
            head = replica.head(near=txid - 1) if files is None else replica.head_of(files)
        except UnavailableError:
            if usable and not waits:
                return None  # it is asked again before anything is sent
            raise
        own = head is not None and self._shipper.is_own(head.epoch)
        void = key in self._voided or (head is not None and not own)
        if not usable and not void and self._may_lack(key, txid, head):
            if not self._is_accepted(key, head):
                raise self._incomplete(key, head)
            self._keep_aside(path)
            _log.warning("the catalog goes on as the bucket has it; newer commits are lost")
            assert head is not None
            return self._restore(key, path, replica, head, files)
        if head is None:
            origin = None if usable else read_link(replica)
            if origin is not None:
                return self._begin_branch(key, path, origin, durability)
            self._brought[key] = 0
            self._verified.add(key)
            return None
        if usable and own and head.txid <= txid:
            self._verified.add(key)
            if not head.is_open:
                self._brought[key] = head.txid
            return None
        if not usable and own and key not in self._voided and head.txid < txid:
            return None  # the bucket has less than was acknowledged: an operator must decide
        return self._restore(key, path, replica, head, files)

    def _is_whole(self, key: ObjectKey, path: Path) -> bool:
        """Look for damage. SQL can provoke the error without any."""
        remove_wal(self._disk, path)
        try:
            check_database(path)
        except DosqlError as error:
            _log.error("object %s is damaged: %s", key.id.hex(), error)
            return False
        self._suspect.discard(key)
        return True

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
        own = self._shipper.is_own(head.epoch)
        try:
            txid = self._takeover.fetch(replica, head, files, temporary, own=own)
            place_database(self._disk, self._log, key, temporary, path, txid)
        finally:
            temporary.unlink(missing_ok=True)
        self._behind.remove(key)
        self._voided.discard(key)
        self._suspect.discard(key)
        self._verified.add(key)
        self._brought[key] = txid
        return txid

    def _begin_branch(self, key: ObjectKey, path: Path, link: Link, durability: Durability) -> int:
        """Build what a branch begins as out of its parent's files."""
        settings = self._settings
        parent = Replica(settings.bucket, Layout(link.path, settings.directory))
        temporary = self._scratch / f"branch-{key.filename}"
        try:
            write_state(parent, link.txid, temporary)
            check_database(temporary)
            place_database(self._disk, self._log, key, temporary, path, 1)
        finally:
            temporary.unlink(missing_ok=True)
        if durability == "bucket":
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

    def _is_accepted(self, key: ObjectKey, head: Head | None) -> bool:
        wanted = self._settings.accept_catalog_at
        return key == self._catalog and head is not None and wanted == head.txid

    def _keep_aside(self, path: Path) -> None:
        """A damaged file that is about to be replaced by less than it may hold."""
        if path.exists():
            self._disk.rename(path, path.with_name(f"{path.name}.kept"))
            self._disk.sync_dir(path.parent)

    def _incomplete(self, key: ObjectKey, head: Head | None) -> DosqlError:
        """The file is of no use, and the bucket may lack what was acknowledged."""
        if key == self._catalog and head is not None:
            return CorruptError(
                "The catalog is damaged here, and the bucket has it up to batch"
                f" {head.txid} only. What was created, deleted or granted after that would be lost."
                f" To go on without it, start once with --accept-catalog-loss {head.txid}.",
                code="catalog_incomplete",
            )
        shipment = self._shipper.find(key)
        if shipment is not None and shipment.is_moving:
            return UnavailableError(
                "The bucket is being completed, to restore the object from it.",
                code="object_recovering",
                retry_after_s=1,
            )
        return CorruptError(
            "This object's stored data is damaged, and the bucket may lack its newest commits."
        )
