"""MemoryBucket: a bucket that lives as long as the process; for tests and for trying things out."""

from __future__ import annotations

import hashlib
import io
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from msgspec.structs import replace

from dosql.clock import Clock, SystemClock
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
from dosql.replica.bucket_errors import condition_failed, key_missing
from dosql.replica.bucket_usage import BucketUsage, UsageCounter

FaultHook = Callable[[str, str], None]
"""Called with ``put``, ``get``, ``open``, ``head``, ``delete`` or ``list`` and the key before
anything happens; what it raises, the caller gets."""

_PAGE = 1_000


@dataclass(frozen=True)
class _Stored:
    info: ObjectInfo
    data: bytes


def _no_fault(operation: str, key: str) -> None:
    pass


class MemoryBucket:
    """Contents in a dict under one lock. ETags are MD5, as those of S3."""

    def __init__(self, *, clock: Clock | None = None, fault: FaultHook = _no_fault) -> None:
        self.fault = fault
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._stored: dict[str, _Stored] = {}
        self._keys: list[str] = []
        """Sorted."""
        self._counter = UsageCounter()

    @property
    def url(self) -> str:
        return "memory:"

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
        kept = dict(check_metadata(metadata))
        content = bytes(data) if isinstance(data, bytes | bytearray | memoryview) else data.read()
        self.fault("put", key)
        self._counter.request("puts", up=len(content))
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        info = ObjectInfo(key, len(content), etag, self._clock.now_ms(), kept)
        with self._lock:
            before = self._stored.get(key)
            if before is None:
                if if_match is not None:
                    raise condition_failed(key)
                self._refuse_overlap(key)
                self._keys.insert(bisect_left(self._keys, key), key)
            elif if_absent or (if_match is not None and if_match != before.info.etag):
                raise condition_failed(key)
            self._stored[key] = _Stored(info, content)
        return replace(info, modified_ms=0)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        self.fault("get", check_key(key))
        data = self._find(key).data
        part = data[start:] if length is None else data[start : start + length]
        self._counter.request("gets", down=len(part))
        return part

    def open(self, key: str) -> BinaryIO:
        self.fault("open", check_key(key))
        data = self._find(key).data
        self._counter.request("gets", down=len(data))
        return io.BytesIO(data)

    def head(self, key: str) -> ObjectInfo | None:
        self.fault("head", check_key(key))
        self._counter.request("heads")
        stored = self._stored.get(key)
        return stored.info if stored else None

    def delete(self, keys: Iterable[str]) -> None:
        doomed = [check_key(key) for key in keys]
        for first in range(0, len(doomed), _PAGE):
            page = doomed[first : first + _PAGE]
            self.fault("delete", page[0])
            self._counter.request("deletes")
            with self._lock:
                for key in page:
                    if self._stored.pop(key, None):
                        del self._keys[bisect_left(self._keys, key)]

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return self._listing(prefix, after, limit)

    def list_directories(self, prefix: str = "") -> Iterator[str]:
        check_directory(prefix)
        self.fault("list", prefix)
        self._counter.request("lists")
        with self._lock:
            below = [key[len(prefix) :] for key in self._keys if key.startswith(prefix)]
        names = dict.fromkeys(rest.partition("/")[0] for rest in below if "/" in rest)
        return (f"{prefix}{name}/" for name in names)

    def close(self) -> None:
        pass

    def _listing(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        left = limit
        while left is None or left > 0:
            count = _PAGE if left is None else min(left, _PAGE)
            self.fault("list", prefix)
            self._counter.request("lists")
            with self._lock:
                first = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
                keys = [k for k in self._keys[first : first + count] if k.startswith(prefix)]
                page = [replace(self._stored[key].info, metadata=NO_METADATA) for key in keys]
            yield from page
            if len(page) < count:
                return
            after = page[-1].key
            left = None if left is None else left - count

    def _find(self, key: str) -> _Stored:
        stored = self._stored.get(key)
        if stored is None:
            self._counter.request("gets")
            raise key_missing(key)
        return stored

    def _refuse_overlap(self, key: str) -> None:
        """What a directory could not hold, this bucket does not either."""
        names = key.split("/")
        above = ("/".join(names[:count]) for count in range(1, len(names)))
        at = bisect_left(self._keys, f"{key}/")
        below = at < len(self._keys) and self._keys[at].startswith(f"{key}/")
        if below or any(parent in self._stored for parent in above):
            raise InvalidRequestError(
                f"{key} cannot be both a key and a directory.", code="invalid_bucket_key"
            )
