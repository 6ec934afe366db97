"""The data directory: what is where, and that one process has it.

::

    LOCK          held while a host runs
    admin-token   made by the server at its first start
    log/          the commit log of the node
    objects/ab/   database files, by the first two digits of the object's id
    scratch/      exports and imports under way; emptied at the start
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from dosql.errors import ConflictError


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
        shutil.rmtree(self.scratch, ignore_errors=True)
        for directory in (self.log, self.objects, self.scratch):
            directory.mkdir(mode=0o700, exist_ok=True)

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def has_objects(self) -> bool:
        """Whether any object was ever made durable here."""
        return next(self.objects.glob("*/*.sqlite"), None) is not None
