"""KeyMarkers: a durable set of objects: an empty file for each, in a directory of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from dosql.log.disk import Disk
from dosql.log.records import ObjectKey

_SUFFIX = ".sqlite"


class KeyMarkers:
    """Blocking, and safe from any thread."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._lock = threading.Lock()
        self._keys = {
            key
            for path in directory.iterdir()
            if (key := ObjectKey.from_filename(path.name + _SUFFIX)) is not None
        }

    def all(self) -> list[ObjectKey]:
        """Those that are marked."""
        with self._lock:
            return list(self._keys)

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._keys

    def add(self, keys: Iterable[ObjectKey]) -> None:
        """Mark them; durable when this returns."""
        with self._lock:
            fresh = [key for key in keys if key not in self._keys]
            for key in fresh:
                self._disk.open(self._path(key), create=True).close()
            if fresh:
                self._disk.sync_dir(self._directory)
                self._keys.update(fresh)

    def remove(self, key: ObjectKey) -> None:
        """Not durable: a marker that comes back must do no harm."""
        with self._lock:
            if key in self._keys:
                self._disk.unlink(self._path(key))
                self._keys.discard(key)

    def _path(self, key: ObjectKey) -> Path:
        return self._directory / key.filename.removesuffix(_SUFFIX)
