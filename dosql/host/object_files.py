"""ObjectFiles: the database files of a host, and how far each of them can be trusted.

A file holds its object up to some batch, and durably up to some other one. A file that failed, or
was left in the middle of something, is *distrusted*: it is redone from the log before its next use.
All but the bookkeeping is file work, for a thread; one object's calls come one at a time.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from dosql.clock import Clock
from dosql.durability import Durability
from dosql.errors import CorruptError
from dosql.host.catalog import CATALOG_KEY
from dosql.host.changes import ChangeSettings
from dosql.host.retrieval import Retrieval
from dosql.limits import SERVER_TABLES
from dosql.log.disk import Disk
from dosql.log.node_log import NodeLog
from dosql.log.position import read_position, write_position
from dosql.log.records import ObjectKey
from dosql.log.redo import Redo, damaged_path, database_path, remove_database, remove_wal
from dosql.sqlite.capture import resume_capture, start_capture
from dosql.sqlite.database import Database, DatabaseLimits
from dosql.sqlite.migrations import Migration, apply_migrations

_log = logging.getLogger("dosql.host")


_DEFAULT_CHANGES = ChangeSettings()


def _nothing(db: Database, key: ObjectKey) -> None:
    pass


class Copy(msgspec.Struct, frozen=True):
    """A database file at rest, to be removed by whoever asked for it."""

    path: Path
    txid: int
    page_size: int


class ObjectFiles:
    """The files below one directory."""

    def __init__(
        self,
        objects: Path,
        *,
        log: NodeLog,
        disk: Disk,
        clock: Clock,
        limits: DatabaseLimits,
        vfs: str | None,
        changes: ChangeSettings = _DEFAULT_CHANGES,
    ) -> None:
        self._changes = changes
        self._objects = objects
        self._log = log
        self._disk = disk
        self._clock = clock
        self._limits = limits
        self._vfs = vfs
        self._distrusted: set[ObjectKey] = set()
        self.retrieval: Retrieval | None = None
        """Decides what is used, where there is a bucket."""
        self.on_cut: Callable[[ObjectKey, int], None] = lambda key, txid: None
        """Called on a thread: the commit log is about to forget what it has of the object."""
        self.on_removed: Callable[[ObjectKey], None] = lambda key: None
        """Called on a thread: nothing is left here of an object that has ceased to exist."""
        self.on_open: Callable[[Database, ObjectKey], None] = _nothing
        """Called on a thread with the open database of an object that has no schema of ours; what
        it commits is logged as that of migrations is."""
        self._unsynced: dict[ObjectKey, int] = {}
        """What the files of sleeping objects hold that is not yet durable in them."""

    # --- bookkeeping --------------------------------------------------------------------------

    def distrust(self, key: ObjectKey) -> None:
        """Redo the file from the log before its next use."""
        self._distrusted.add(key)

    def is_distrusted(self, key: ObjectKey) -> bool:
        """Whether the file waits to be redone."""
        return key in self._distrusted

    def left_at(self, key: ObjectKey, txid: int) -> None:
        """The object sleeps; its file holds all up to ``txid``, not yet durably."""
        self._unsynced[key] = txid

    def forget(self, key: ObjectKey) -> None:
        """The object is gone."""
        self._unsynced.pop(key, None)
        self._distrusted.discard(key)

    @property
    def has_distrusted(self) -> bool:
        """Whether some file still needs its batches from the log."""
        return bool(self._distrusted)

    def unsynced(self) -> list[ObjectKey]:
        """Sleeping objects whose files are not durable yet."""
        return list(self._unsynced)

    def txid(self, key: ObjectKey) -> int:
        """The newest batch in the file of a sleeping object."""
        txid = self._unsynced.get(key)
        if txid is None:
            txid = read_position(self._disk, database_path(self._objects, key)).txid
        return txid

    # --- file work ----------------------------------------------------------------------------

    def open(
        self, key: ObjectKey, migrations: tuple[Migration, ...] | None, durability: Durability
    ) -> tuple[Path, Database, int]:
        """The database, with its schema up to date, and what its file holds. ``migrations``:
        None leaves the schema as it is; ``durability``: what the object's replies will wait for.

        Raises:
            CorruptError: the file is damaged or missing.
            MigrationError: the schema could not be brought up to date.
        """
        try:
            return self._open(key, migrations, durability)
        except CorruptError as error:
            if self.retrieval is None or not self.retrieval.broke(key, error):
                raise
            return self._open(key, migrations, durability)

    def _open(
        self, key: ObjectKey, migrations: tuple[Migration, ...] | None, durability: Durability
    ) -> tuple[Path, Database, int]:
        path = database_path(self._objects, key)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if self.retrieval is None or not self._bring(self.retrieval, key, path, durability):
            if damaged_path(path).exists():
                raise CorruptError("This object's stored data is damaged; it must be restored.")
            if key in self._distrusted:
                self.redo(key)
        txid = self.txid(key)
        if txid == 0:  # what the file may hold was in no durable commit, and may be torn
            self._disk.unlink(path)
        elif not path.exists():
            raise CorruptError("This object's database file is missing; it must be restored.")
        remove_wal(self._disk, path)
        db = Database(
            str(path),
            clock=self._clock,
            limits=self._limits,
            vfs=self._vfs,
            server_tables=SERVER_TABLES if migrations is not None else frozenset(),
        )
        try:
            if migrations is not None:
                db.set_deadline(None)
                db.next_txid = lambda: txid + 1
                self._capture(db, key)
                apply_migrations(db, migrations, now_ms=self._clock.now_ms())
            else:
                self.on_open(db, key)
        except BaseException:
            # What was committed on the way is in no log: give it up with the WAL.
            db.close()
            remove_wal(self._disk, path)
            raise
        return path, db, txid

    def _capture(self, db: Database, key: ObjectKey) -> None:
        """Capture changes from the first write on, if they are to be."""
        settings, life = self._changes, key.incarnation
        resume_capture(db, self._clock, settings.retention, incarnation=life)
        if settings.always and key != CATALOG_KEY:
            start_capture(db, self._clock, settings.retention, incarnation=life)

    def _bring(
        self, retrieval: Retrieval, key: ObjectKey, path: Path, durability: Durability
    ) -> bool:
        """Whether the file was brought from the bucket."""
        if key in self._distrusted and not retrieval.is_void(key):
            try:
                self.redo(key)
            except CorruptError:
                _log.warning("object %s is damaged", key.id.hex())
        try:
            txid = self.txid(key)
        except CorruptError:
            txid = 0
        if retrieval.bring(key, path, txid, durability) is None:
            return False
        self.forget(key)
        return True

    def remove(self, key: ObjectKey) -> None:
        """Remove what there is of the object; it has ceased to exist."""
        path = database_path(self._objects, key)
        if remove_database(self._disk, path):
            self._disk.sync_dir(path.parent)
        self.on_removed(key)

    def copy(self, key: ObjectKey, target: Path) -> Copy | None:
        """Copy the file of a sleeping object; None: there is none that could be used."""
        path = database_path(self._objects, key)
        if damaged_path(path).exists():
            return None
        if key in self._distrusted:
            self.redo(key)
        txid = self.txid(key)
        if not txid or not path.exists():
            return None
        shutil.copyfile(path, target)
        with target.open("rb") as file:
            page_size = int.from_bytes(file.read(18)[16:18], "big")
        return Copy(target, txid, 65536 if page_size == 1 else page_size)

    def redo(self, key: ObjectKey) -> None:
        """Bring a distrusted file to the object's last durable commit.

        Raises:
            CorruptError: the log and the file do not go together.
        """
        path = database_path(self._objects, key)
        position = read_position(self._disk, path)
        batches = self._log.batches(key, position.txid, position.since)
        report = Redo(self._objects, self._disk).run((position.since, each) for each in batches)
        if key in report.damaged:
            raise CorruptError("This object's stored data is damaged; it must be restored.")
        if position.txid and not batches:  # its sync may be what failed
            write_position(self._disk, path, position.txid)
        self.forget(key)

    def sync(self, key: ObjectKey, txid: int | None, position: int) -> None:
        """Make durable what the file holds, so that the log need not keep it.

        ``txid``: what an object that is awake was checkpointed at; None: it sleeps. ``position``:
        where in the log its later batches are.
        """
        path = database_path(self._objects, key)
        if txid is None:
            txid = self._unsynced.get(key)
        if txid is None:
            txid = read_position(self._disk, path).txid
        else:
            file = self._disk.open(path)
            try:
                file.sync()
                write_position(self._disk, path, txid)
            except OSError:
                # A second sync would prove nothing: the file is written again, from the log.
                self.distrust(key)
                raise
            finally:
                file.close()
            if self._unsynced.get(key) == txid:
                del self._unsynced[key]
        self.on_cut(key, txid)
        self._log.checkpointed(key, txid, position)
