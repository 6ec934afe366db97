"""LocalBucket: a bucket in a directory.

A key is a file of the same relative path with exactly the content, so that other programs can read
it: a file replica of Litestream, a copy by ``rsync``. Written as a temporary file, fsynced, then
linked (``if_absent``: the file system lets one of any number of processes win) or renamed over the
old one under a lock between processes (``if_match``), and the directory fsynced.

**ETag**: mtime, size and inode. A write that replaces a file sets its mtime later than the old
one's, so that an ETag does not return, however coarse the clock of the file system.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, cast
from urllib.parse import quote

from msgspec.structs import replace

from dosql.errors import InvalidRequestError
from dosql.replica.bucket import (
    NO_METADATA,
    ObjectInfo,
    check_condition,
    check_directory,
    check_key,
    check_metadata,
    check_prefix,
    check_range,
)
from dosql.replica.bucket_errors import (
    BucketDeniedError,
    BucketOutcomeUnknownError,
    BucketUnavailableError,
    condition_failed,
    key_missing,
)
from dosql.replica.bucket_usage import BucketUsage, UsageCounter
from dosql.replica.local_files import (
    LocalLayout,
    directories,
    etag_of,
    is_regular,
    make_directories,
    remove_empty,
    sync_directory,
    walk,
)
from dosql.replica.local_metadata import LocalMetadata, info_of, timestamp_ns

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_OVERLAP = {errno.ENOTDIR, errno.EISDIR}
_OPEN_TO_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_COPY_BYTES = 1 << 20
_PAGE = 1_000


class LocalBucket:
    """The directory is made if it is missing. Any number of processes may open it."""

    def __init__(self, directory: Path) -> None:
        """Raises BucketUnavailableError, BucketDeniedError, or InvalidRequestError
        ``invalid_bucket_url`` for the path of a file."""
        self._counter = UsageCounter()
        self._root = directory.absolute()
        with _translated(str(directory)):
            try:
                self._layout = LocalLayout(self._root)
            except (FileExistsError, NotADirectoryError) as error:
                raise InvalidRequestError(
                    "The bucket's directory is a file, or below one.", code="invalid_bucket_url"
                ) from error
        self._metadata = LocalMetadata(self._layout)

    @property
    def url(self) -> str:
        return f"file://{quote(str(self._root))}"

    @property
    def usage(self) -> BucketUsage:
        return self._counter.usage

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        check_condition(if_absent, if_match)
        check_key(key)
        check_metadata(metadata)
        with _translated(key):
            descriptor, name = tempfile.mkstemp(dir=self._layout.tmp)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    self._fill(file, data)
                    self._counter.request("puts", up=file.tell())
                    info = self._commit(file, temporary, key, if_absent, if_match, metadata)
            finally:
                temporary.unlink(missing_ok=True)
        return replace(info, modified_ms=0, metadata=dict(metadata))

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        with self._opened(key) as file, _translated(key):
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size + start) if start < 0 else start)
            data = file.read() if length is None else file.read(length)
        self._counter.request("gets", down=len(data))
        return data

    def open(self, key: str) -> BinaryIO:
        file = self._opened(key)
        self._counter.request("gets", down=os.fstat(file.fileno()).st_size)
        return file

    def head(self, key: str) -> ObjectInfo | None:
        check_key(key)
        self._counter.request("heads")
        with _translated(key):
            status = self._status(key)
            if status is None:
                return None
            return self._metadata.complete(info_of(key, status))

    def delete(self, keys: Iterable[str]) -> None:
        doomed = [check_key(key) for key in keys]
        parents = {self._layout.path_of(key).parent for key in doomed}
        for first in range(0, len(doomed), _PAGE):
            self._counter.request("deletes")
            for key in doomed[first : first + _PAGE]:
                with _translated(key):
                    self._unlink(key)
        with _translated("a directory"):
            for parent in parents:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    sync_directory(parent)
                    if not any(parent.iterdir()):
                        with self._layout.change_directories():
                            remove_empty(parent, self._root)

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._listing(prefix, after, limit)

    def list_directories(self, prefix: str = "") -> Iterator[str]:
        check_directory(prefix)
        self._counter.request("lists")
        with _translated(prefix):
            return iter(directories(self._root, prefix))

    def close(self) -> None:
        self._layout.close()

    # --- writing ----------------------------------------------------------------------------

    def _fill(self, file: io.BufferedWriter, data: bytes | BinaryIO) -> None:
        """The content, and its mtime settled no earlier than that of the last write to it."""
        if isinstance(data, bytes | bytearray | memoryview):
            file.write(data)
        else:
            copyfileobj(data, file, _COPY_BYTES)
        file.flush()

    def _commit(
        self,
        file: io.BufferedWriter,
        temporary: Path,
        key: str,
        if_absent: bool,
        if_match: str | None,
        metadata: Mapping[str, str],
    ) -> ObjectInfo:
        """Make the temporary file the content of the key. Nobody sees a part of it."""
        path = self._layout.path_of(key)
        mtime_ns = timestamp_ns(key, metadata) or os.fstat(file.fileno()).st_mtime_ns
        if if_absent and self._status(key):
            raise condition_failed(key)  # the link below decides; this spares losers the sync
        before: os.stat_result | None = None
        with contextlib.ExitStack() as held:
            if not if_absent:
                held.enter_context(self._layout.lock_key(key))
                before = self._status(key)
                if if_match is not None and (before is None or etag_of(before) != if_match):
                    raise condition_failed(key)
                if before is not None:
                    mtime_ns = max(mtime_ns, before.st_mtime_ns + 1)
            os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
            os.fsync(file.fileno())
            info = info_of(key, os.fstat(file.fileno()))
            self._metadata.keep(info, metadata)
            try:
                self._place(temporary, path, if_absent=if_absent)
            except FileExistsError:
                self._metadata.forget(key, info.etag)
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, "a directory", str(path)) from None
                raise condition_failed(key) from None
            if before is not None:
                self._metadata.forget(key, etag_of(before))
        return info

    def _place(self, temporary: Path, path: Path, *, if_absent: bool) -> None:
        """Raises FileExistsError if the key is there and must not be."""
        while True:
            with self._layout.keep_directories():
                try:
                    if if_absent:
                        os.link(temporary, path)
                    else:
                        os.rename(temporary, path)
                except FileNotFoundError:
                    pass
                else:
                    _sync_placed(path)
                    return
            if not temporary.exists():
                raise BucketUnavailableError("The bucket's temporary file was removed.")
            with self._layout.change_directories():
                make_directories(path.parent)

    def _unlink(self, key: str) -> None:
        with self._layout.lock_key(key):
            status = self._status(key)
            if status is not None:
                self._layout.path_of(key).unlink(missing_ok=True)
                self._metadata.forget(key, etag_of(status))

    # --- reading ----------------------------------------------------------------------------

    def _status(self, key: str) -> os.stat_result | None:
        try:
            status = self._layout.path_of(key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if is_regular(status) else None

    def _opened(self, key: str) -> BinaryIO:
        with _translated(check_key(key)):
            status = self._status(key)
            descriptor = -1
            if status is not None:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    descriptor = os.open(self._layout.path_of(key), _OPEN_TO_READ)
            if descriptor < 0:
                self._counter.request("gets")
                raise key_missing(key)
            return cast("BinaryIO", os.fdopen(descriptor, "rb"))

    def _listing(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        with _translated(prefix):
            for number, (key, status) in enumerate(islice(walk(self._root, prefix, after), limit)):
                if number % _PAGE == 0:
                    self._counter.request("lists")
                yield info_of(key, status)


def _sync_placed(path: Path) -> None:
    """The name is there; nobody can tell for how long if the directory does not sync."""
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise BucketOutcomeUnknownError(
            f"Syncing the bucket's directory failed: {os.strerror(error.errno or 0)}."
        ) from error


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    """The file system's errors as those of a bucket. Nothing of the call was kept."""
    try:
        yield
    except OSError as error:
        if error.errno in _OVERLAP:
            raise InvalidRequestError(
                f"{key} cannot be both a key and a directory.", code="invalid_bucket_key"
            ) from error
        reason = os.strerror(error.errno or 0)
        if error.errno in _DENIED:
            raise BucketDeniedError(f"The bucket's directory refused: {reason}.") from error
        raise BucketUnavailableError(f"The bucket's directory failed: {reason}.") from error
