"""The data directory: what is where, and that one process has it.

::

    LOCK          held while a host runs
    admin-token   made by the server at its first start
    log/          the commit log of the node
    objects/ab/   database files, by the first two digits of the object's id
    scratch/      exports and imports under way; emptied at the start
    bucket/       the copy of everything, unless another bucket is chosen
    behind/       an empty file for each object of which the bucket lacks something
    orphans/      an empty file for each object that may have files though the catalog has it not
    epoch         who writes to the bucket: this directory, and how often it was started
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from dosql.clock import Randomness
from dosql.errors import ConflictError
from dosql.log.disk import Disk
from dosql.log.records import ObjectKey

_BUCKET = "bucket-url"


class DataDirectory:
    """Creates the directories (0700) and takes the lock.

    Raises:
        ConflictError: ``data_dir_locked``: another process has it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        self.objects = root / "objects"
        self.scratch = root / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(root / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ConflictError(
                "Another process uses this data directory.", code="data_dir_locked"
            ) from None
        for gone in (self.scratch, root / "states"):
            shutil.rmtree(gone, ignore_errors=True)
        for directory in (self.log, self.objects, self.scratch):
            directory.mkdir(mode=0o700, exist_ok=True)

    @property
    def states(self) -> Path:
        """For files of past states; created if it is missing, emptied at the start."""
        path = self.root / "states"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    @property
    def behind(self) -> Path:
        """Created if it is missing."""
        path = self.root / "behind"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    @property
    def orphans(self) -> Path:
        """Created if it is missing."""
        path = self.root / "orphans"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def next_epoch(self, disk: Disk, randomness: Randomness) -> int:
        """A number that no other start, of this or another directory, ever had; durable."""
        path = self.root / "epoch"
        try:
            epoch = int(path.read_text("ascii"), 16) + 1
        except (FileNotFoundError, ValueError):
            own = int.from_bytes(randomness.token_bytes(5), "big") >> 1 | 1
            epoch = (own << 24) + 1
        temporary = path.with_name("epoch.new")
        file = disk.open(temporary, create=True)
        try:
            file.truncate(0)
            file.pwrite(f"{epoch:016x}\n".encode(), 0)
            file.sync()
        finally:
            file.close()
        disk.rename(temporary, path)
        disk.sync_dir(self.root)
        return epoch

    def bucket(self) -> str | None:
        """URL of the bucket that the objects here were copied to last."""
        try:
            return (self.root / "behind" / _BUCKET).read_text("utf-8")
        except FileNotFoundError:
            return None

    def note_bucket(self, url: str, disk: Disk) -> None:
        """From now on they are copied to this bucket."""
        file = disk.open(self.behind / _BUCKET, create=True)
        try:
            file.truncate(0)
            file.pwrite(url.encode(), 0)
            file.sync()
        finally:
            file.close()

    def keys(self) -> list[ObjectKey]:
        """Every object that has a file here."""
        found = (ObjectKey.from_filename(path.name) for path in self.objects.glob("*/*.sqlite"))
        return [key for key in found if key is not None]

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def has_objects(self) -> bool:
        """Whether any object was ever made durable here."""
        return next(self.objects.glob("*/*.sqlite"), None) is not None
