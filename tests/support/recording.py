"""Records every file operation of a host, SQLite's own included, in one global order."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import apsw

from dosql.log.disk import DiskFile, RealDisk
from tests.support.crashes import FileOperation, Kind

_DIRECTORIES = ("log", "objects", "orphans", "scratch")
_numbers = itertools.count()


class LooseDisk(RealDisk):
    """The real files without the wait for the device: for tests whose power never fails."""

    def open(self, path: Path, *, create: bool = False) -> DiskFile:
        return _LooseFile(super().open(path, create=create))

    def sync_dir(self, path: Path) -> None:
        pass


class _LooseFile:
    def __init__(self, inner: DiskFile) -> None:
        self.pread = inner.pread
        self.pwrite = inner.pwrite
        self.truncate = inner.truncate
        self.size = inner.size
        self.close = inner.close

    def sync(self) -> None:
        pass


class Recorder:
    """The trace of one data directory. Pass `disk` and `vfs` to ``Host.start``.

    Use it as a context manager: the VFS is unregistered at the end.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self.operations: list[FileOperation] = []
        self.lock = threading.RLock()
        self.fails_sync: Callable[[Path], bool] = lambda path: False
        """Asked at each sync of a file outside SQLite whether it fails with EIO."""
        self.disk = RecordingDisk(self)
        self.vfs = f"recording-{next(_numbers)}"
        self._registered = _RecordingVfs(self)
        self._directories: set[str] = set()
        if self.root.exists():
            for directory, _, _ in os.walk(self.root):
                self._directories.add(self.relative(directory))
        for directory in _DIRECTORIES:
            self._need_directory(directory)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._registered.unregister()

    @property
    def position(self) -> int:
        """How many operations there were so far."""
        return len(self.operations)

    def relative(self, path: str | Path) -> str:
        """The path from the data directory."""
        relative = os.path.relpath(path, self.root)
        return "" if relative == "." else relative

    def record(
        self,
        kind: Kind,
        path: str | Path,
        data: bytes = b"",
        offset: int = 0,
        target: str | Path | None = None,
    ) -> None:
        """Note an operation that has just succeeded; the caller holds `lock`."""
        to = "" if target is None else self.relative(target)
        name = self.relative(path)
        if kind in ("create", "rename"):
            self._need_directory(os.path.dirname(to or name))
        self.operations.append(FileOperation(kind, name, data, offset, to))

    def _need_directory(self, path: str) -> None:
        if path and path not in self._directories:
            self._need_directory(os.path.dirname(path))
            self._directories.add(path)
            self.operations.append(FileOperation("mkdir", path))


class RecordingDisk:
    """A `Disk` whose syncs cost nothing and are recorded, as is everything else."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._inner = LooseDisk()

    def open(self, path: Path, *, create: bool = False) -> DiskFile:
        recorder = self._recorder
        with recorder.lock:
            fresh = not path.exists()
            inner = self._inner.open(path, create=create)
            if fresh:
                recorder.record("create", path)
            elif path.parent.name == "scratch":  # written by others: take it as it is now
                recorder.record("create", path)
                recorder.record("write", path, path.read_bytes())
        return _RecordingDiskFile(recorder, path, inner)

    def rename(self, source: Path, target: Path) -> None:
        with self._recorder.lock:
            self._inner.rename(source, target)
            self._recorder.record("rename", source, target=target)

    def unlink(self, path: Path) -> None:
        with self._recorder.lock:
            if path.exists():
                self._inner.unlink(path)
                self._recorder.record("unlink", path)

    def sync_dir(self, path: Path) -> None:
        with self._recorder.lock:
            self._recorder.record("sync_dir", path)


class _RecordingDiskFile:
    """A file opened through `RecordingDisk`. It is renamed and unlinked only while closed, or
    (a segment made from the spare) before it is opened, so its path identifies it."""

    def __init__(self, recorder: Recorder, path: Path, inner: DiskFile) -> None:
        self._recorder = recorder
        self._path = path
        self._inner = inner

    def pread(self, count: int, offset: int) -> bytes:
        return self._inner.pread(count, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        with self._recorder.lock:
            self._inner.pwrite(data, offset)
            self._recorder.record("write", self._path, bytes(data), offset)

    def sync(self) -> None:
        recorder = self._recorder
        with recorder.lock:
            if recorder.fails_sync(self._path):
                recorder.record("failed_sync", self._path)
                raise OSError(errno.EIO, "injected", str(self._path))
            recorder.record("sync", self._path)

    def truncate(self, size: int) -> None:
        with self._recorder.lock:
            self._inner.truncate(size)
            self._recorder.record("truncate", self._path, offset=size)

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()


class _RecordingVfs(apsw.VFS):
    """SQLite's default VFS, with what it does to databases and their WALs recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__(recorder.vfs, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("", name, flags)
        return _RecordingVfsFile(self._recorder, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self._recorder.lock:
            super().xDelete(filename, syncdir)
            self._recorder.record("unlink", filename)


class _RecordingVfsFile(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: str | apsw.URIFilename, flags: list[int]) -> None:
        self._recorder = recorder
        self._path = name if isinstance(name, str) else name.filename()
        with recorder.lock:
            fresh = not os.path.exists(self._path)
            super().__init__("", name, flags)
            if fresh:
                recorder.record("create", self._path)

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._recorder.lock:
            super().xWrite(data, offset)
            self._recorder.record("write", self._path, bytes(data), offset)

    def xTruncate(self, newsize: int) -> None:
        with self._recorder.lock:
            super().xTruncate(newsize)
            self._recorder.record("truncate", self._path, offset=newsize)

    def xSync(self, flags: int) -> None:
        with self._recorder.lock:
            self._recorder.record("sync", self._path)
