"""Disks that hold, fail or record: `RealDisk` with something in the way."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

from dosql.log.disk import Disk, DiskFile, RealDisk

Interfere = Callable[[str, Path], None]
"""Called before each operation with its name and its file; what it raises, the operation raises."""


class WatchedFile:
    """A file whose operations are announced first."""

    def __init__(self, path: Path, inner: DiskFile, before: Interfere) -> None:
        self._path = path
        self._inner = inner
        self._before = before

    def pread(self, count: int, offset: int) -> bytes:
        self._before("pread", self._path)
        return self._inner.pread(count, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        self._before("pwrite", self._path)
        self._inner.pwrite(data, offset)

    def sync(self) -> None:
        self._before("sync", self._path)
        self._inner.sync()

    def truncate(self, size: int) -> None:
        self._before("truncate", self._path)
        self._inner.truncate(size)

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()


class WatchedDisk:
    """`RealDisk`, with every operation announced first."""

    def __init__(self, before: Interfere | None = None) -> None:
        self._inner: Disk = RealDisk()
        self.before: Interfere = before or (lambda operation, path: None)

    def open(self, path: Path, *, create: bool = False) -> DiskFile:
        self.before("create" if create and not path.exists() else "open", path)
        return WatchedFile(path, self._inner.open(path, create=create), self._announce)

    def rename(self, source: Path, target: Path) -> None:
        self.before("rename", source)
        self._inner.rename(source, target)

    def unlink(self, path: Path) -> None:
        if path.exists():
            self.before("unlink", path)
            self._inner.unlink(path)

    def sync_dir(self, path: Path) -> None:
        self.before("sync_dir", path)
        self._inner.sync_dir(path)

    def _announce(self, operation: str, path: Path) -> None:
        self.before(operation, path)


class HeldDisk(WatchedDisk):
    """Syncs of log segments wait while it is held: commits are not durable meanwhile."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self._released = threading.Event()
        self._released.set()
        self.waiting = threading.Event()
        """Set when a sync waits."""

    def hold(self) -> None:
        """From now on, segment syncs wait."""
        self.waiting.clear()
        self._released.clear()

    def release(self) -> None:
        """Let them go on."""
        self._released.set()

    def _wait(self, operation: str, path: Path) -> None:
        if operation == "sync" and path.suffix == ".log" and not self._released.is_set():
            self.waiting.set()
            if not self._released.wait(30):
                raise AssertionError("a held disk was never released")


class FailingDisk(WatchedDisk):
    """Fails chosen operations on log files with an errno."""

    def __init__(self) -> None:
        super().__init__(self._fail)
        self.failing: dict[str, int] = {}
        """Operation name to errno, for files below ``log/`` but the spare, which is prepared in
        the background whenever there is time."""
        self.failures_left: int | None = None
        self.failed = 0

    def fail(self, *operations: str, code: int = errno.EIO, times: int | None = None) -> None:
        """These operations fail, ``times`` times or until `heal`."""
        self.failing = dict.fromkeys(operations, code)
        self.failures_left = times

    def heal(self) -> None:
        """Everything works again."""
        self.failing = {}

    def _fail(self, operation: str, path: Path) -> None:
        code = self.failing.get(operation)
        if code is None or path.parent.name != "log" or path.stem == "spare":
            return
        if self.failures_left is not None:
            if self.failures_left == 0:
                return
            self.failures_left -= 1
        self.failed += 1
        raise OSError(code, "injected", str(path))
