"""Files of a `LocalBucket`: durable directories, locks between processes, listings in key order.

Below the bucket's root, ``.bucket`` holds what is not content::

    .bucket/users          locked (shared) by every process that has the bucket open
    .bucket/directories    locked (shared) to write a key, (exclusive) to make or remove directories
    .bucket/locks/00..3f   locked to replace or delete a key, by the hash of the key
    .bucket/tmp/           contents under way; emptied by the first process to open the bucket
    .bucket/metadata/      metadata that has no other place, named by the hash of key and ETag
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dosql.replica.bucket import RESERVED_NAME

_LOCKS = 64


class LocalLayout:
    """Where things are below the root, and the locks on them."""

    def __init__(self, root: Path) -> None:
        """Makes what is missing. Raises OSError."""
        self.root = root
        self.own = root / RESERVED_NAME
        self.tmp = self.own / "tmp"
        self.metadata = self.own / "metadata"
        self._locks = self.own / "locks"
        make_directories(root)
        for path in (self.own, self.tmp, self.metadata, self._locks):
            path.mkdir(exist_ok=True)
            sync_directory(path.parent)
        self._users = os.open(self.own / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._enter()
        except BaseException:
            os.close(self._users)
            raise

    def close(self) -> None:
        """Let the next process clean up. A second call does nothing."""
        if self._users >= 0:
            os.close(self._users)
            self._users = -1

    def path_of(self, key: str) -> Path:
        """The file of a checked key."""
        return self.root / key

    def metadata_path(self, key: str, etag: str) -> Path:
        """Where the metadata of this one content of the key is, if it has any."""
        name = hashlib.sha256(f"{key}\n{etag}".encode()).hexdigest()
        return self.metadata / f"{name}.json"

    def lock_key(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Nobody else replaces or deletes the key meanwhile, in any process."""
        number = hashlib.sha256(key.encode()).digest()[0] % _LOCKS
        return _locked(self._locks / f"{number:02x}", fcntl.LOCK_EX)

    def keep_directories(self) -> contextlib.AbstractContextManager[None]:
        """No directory is made or removed meanwhile: those that are there are durable."""
        return _locked(self.own / "directories", fcntl.LOCK_SH)

    def change_directories(self) -> contextlib.AbstractContextManager[None]:
        """Nobody writes a key or looks at directories meanwhile."""
        return _locked(self.own / "directories", fcntl.LOCK_EX)

    def _enter(self) -> None:
        """Empty ``tmp`` if nobody else is there; what it holds then is of a dead process."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in self.tmp.iterdir():
                path.unlink(missing_ok=True)
        fcntl.flock(self._users, fcntl.LOCK_SH)


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Holds flock of its own open file, so that it keeps threads apart as well as processes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Return when the names in the directory survive a power loss. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Make the directory and all above it, durably. Raises OSError."""
    if path.is_dir():
        return
    make_directories(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    sync_directory(path.parent)


def remove_empty(path: Path, root: Path) -> None:
    """Remove the directory and those above it, below the root, as long as they are empty."""
    while path != root:
        try:
            path.rmdir()
        except OSError:
            return
        path = path.parent


def etag_of(status: os.stat_result) -> str:
    """Changes with every write: a replaced file gets a later mtime (see `LocalBucket`)."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def walk(root: Path, prefix: str, after: str) -> Iterator[tuple[str, os.stat_result]]:
    """Keys that begin with the prefix and come after ``after``, in byte order, lazily: one
    directory at a time, skipping those that cannot hold any."""
    yield from _walk(root, prefix.rpartition("/")[0], prefix, after)


def _walk(
    root: Path, directory: str, prefix: str, after: str
) -> Iterator[tuple[str, os.stat_result]]:
    # A directory sorts as its name with a slash, because that is how its keys begin.
    for name, is_directory in sorted(_entries(root / directory)):
        key = f"{directory}/{name}" if directory else name
        if key == f"{RESERVED_NAME}/" or not (key.startswith(prefix) or prefix.startswith(key)):
            continue
        if is_directory:
            if key > after or after.startswith(key):
                yield from _walk(root, key.removesuffix("/"), prefix, after)
        elif key > after and key.startswith(prefix):
            with contextlib.suppress(FileNotFoundError):
                yield key, (root / key).stat()


def directories(root: Path, prefix: str) -> list[str]:
    """Directories right below the prefix, each with a slash at its end, in order."""
    found = sorted(name for name, is_directory in _entries(root / prefix) if is_directory)
    return [f"{prefix}{name}" for name in found if prefix or name != f"{RESERVED_NAME}/"]


def _entries(path: Path) -> list[tuple[str, bool]]:
    """Names, directories with a slash at the end. Links and devices are nobody's keys."""
    try:
        with os.scandir(path) as entries:
            return [
                (f"{entry.name}/", True)
                if entry.is_dir(follow_symlinks=False)
                else (entry.name, False)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_regular(status: os.stat_result) -> bool:
    """A file, and not a directory, device or link."""
    return stat.S_ISREG(status.st_mode)
