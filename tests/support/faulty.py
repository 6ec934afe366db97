"""Storage whose N-th operation fails, counted over the log's files and SQLite's alike."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from pathlib import Path
from types import TracebackType

import apsw

from tests.support.disks import WatchedDisk
from tests.support.recording import LooseDisk

_numbers = itertools.count()
_COUNTED = ("pread", "pwrite", "sync", "truncate", "create", "open", "rename", "unlink", "sync_dir")


class FaultyStorage:
    """Pass `disk` and `vfs` to ``Host.start``; as a context manager it unregisters the VFS."""

    def __init__(self) -> None:
        self.disk = WatchedDisk(self._on_disk)
        self.disk._inner = LooseDisk()
        self.vfs = f"faulty-{next(_numbers)}"
        self._registered = _FaultyVfs(self)
        self._lock = threading.Lock()
        self.count = 0
        """Operations so far."""
        self.failed: list[str] = []
        """What failed, as "operation name"."""
        self._fail_at: int | None = None
        self._code = errno.EIO
        self._times = 1

    def __enter__(self) -> FaultyStorage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._registered.unregister()

    def fail(self, after: int, code: int, times: int = 1) -> None:
        """``after`` operations from now succeed; the ``times`` that follow fail."""
        with self._lock:
            self._fail_at, self._code, self._times = self.count + after + 1, code, times

    def heal(self) -> None:
        """Everything works again."""
        self._fail_at = None

    def due(self, operation: str, path: str) -> int | None:
        """Count an operation; the errno if it must fail."""
        with self._lock:
            self.count += 1
            at = self._fail_at
            if at is None or not at <= self.count < at + self._times:
                return None
            self.failed.append(f"{operation} {os.path.basename(path)[-24:]}")
            return self._code

    def _on_disk(self, operation: str, path: Path) -> None:
        code = self.due(operation, str(path)) if operation in _COUNTED else None
        if code is not None:
            raise OSError(code, "injected", str(path))


class _FaultyVfs(apsw.VFS):
    def __init__(self, storage: FaultyStorage) -> None:
        self._storage = storage
        super().__init__(storage.vfs, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = "" if name is None else name if isinstance(name, str) else name.filename()
        if self._storage.due("xOpen", path) is not None:
            raise apsw.CantOpenError("injected")
        return _FaultyVfsFile(self._storage, path, name, flags)


class _FaultyVfsFile(apsw.VFSFile):
    def __init__(
        self,
        storage: FaultyStorage,
        path: str,
        name: str | apsw.URIFilename | None,
        flags: list[int],
    ) -> None:
        self._storage = storage
        self._path = path
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._check("xRead", apsw.IOError)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._check("xWrite", apsw.IOError)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._check("xTruncate", apsw.IOError)
        super().xTruncate(newsize)

    def _check(self, operation: str, kind: type[apsw.Error]) -> None:
        code = self._storage.due(operation, self._path)
        if code is None:
            return
        if code == errno.ENOSPC and operation == "xWrite":
            raise apsw.FullError("injected")
        raise kind("injected")
