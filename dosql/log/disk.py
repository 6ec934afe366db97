"""Disk: the few file operations that durability rests on, as a seam.

`RealDisk` is the operating system. Tests put a recording or failing one in its place, to visit
every crash point and every failing call.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol

from dosql.errors import DosqlError, QuotaError, UnavailableError


def disk_error(error: OSError) -> DosqlError:
    """What a caller is told when a file operation failed before anything of its call was kept."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuotaError("The disk is full; nothing was written.", code="disk_full")
    return UnavailableError(
        "Reading or writing a file failed; nothing was written.",
        code="object_recovering",
        retry_after_s=1,
    )


class DiskFile(Protocol):
    """An open file, addressed by offset."""

    def pread(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of ``data``, or raise OSError."""
        ...

    def sync(self) -> None:
        """Return when everything written to the file survives a power loss, or raise OSError.

        After an OSError the state of what was written is unknown: never call it again in hope.
        """
        ...

    def truncate(self, size: int) -> None:
        """Cut or extend the file to ``size`` bytes."""
        ...

    def size(self) -> int:
        """Bytes in the file."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


class Disk(Protocol):
    """Files and directories by path."""

    def open(self, path: Path, *, create: bool = False) -> DiskFile:
        """Open for reading and writing. FileNotFoundError without ``create``."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Atomically replace ``target``; durable after `sync_dir`."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file; a missing one is fine. Durable after `sync_dir`."""
        ...

    def sync_dir(self, path: Path) -> None:
        """Make the entries of a directory durable."""
        ...


class RealFile:
    """A file of the operating system."""

    def __init__(self, path: Path, *, create: bool) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        self._fd = os.open(path, flags, 0o600)

    def pread(self, count: int, offset: int) -> bytes:
        data = os.pread(self._fd, count, offset)
        while len(data) < count:
            more = os.pread(self._fd, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def pwrite(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            offset += written
            view = view[written:]

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)


class RealDisk:
    """The operating system's file systems."""

    def open(self, path: Path, *, create: bool = False) -> DiskFile:
        return RealFile(path, create=create)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def sync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
