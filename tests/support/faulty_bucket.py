"""FaultyBucket: a bucket whose requests fail by chance, before or after they take effect."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from dosql.replica.bucket import NO_METADATA, Bucket, ObjectInfo
from dosql.replica.bucket_errors import BucketOutcomeUnknownError, BucketUnavailableError
from tests.support.buckets import WrappedBucket

T = TypeVar("T")


@dataclass
class FaultRates:
    """Chances from 0 to 1; change them while it runs, to heal it or to cut it off."""

    before: float = 0.0
    """BucketUnavailableError, and nothing happened."""
    after: float = 0.0
    """Writes only: it happened, and BucketOutcomeUnknownError is raised (a lost reply)."""
    phantom: float = 0.0
    """Writes only: BucketOutcomeUnknownError, and nothing happened (a lost request)."""
    truncated: float = 0.0
    """`get` only: fewer bytes than there are, without an error. No honest store does this; a
    reader of checksummed files must notice it anyhow."""
    latency_s: float = 0.0
    """Upper bound of a uniform wait before every request."""


class FaultyBucket(WrappedBucket):
    """The same seed and the same sequence of calls give the same faults."""

    def __init__(
        self, inner: Bucket, randomness: random.Random, rates: FaultRates | None = None
    ) -> None:
        super().__init__(inner)
        self.rates = rates or FaultRates()
        self.faults: list[tuple[str, str, str]] = []
        """Operation, key, and what was done to it."""
        self._randomness = randomness
        self._lock = threading.Lock()

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        return self._write(
            "put",
            key,
            lambda: self.inner.put(
                key, data, if_absent=if_absent, if_match=if_match, metadata=metadata
            ),
        )

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._before("get", key)
        data = self.inner.get(key, start=start, length=length)
        if data and self._hits(self.rates.truncated, "get", key, "truncated"):
            with self._lock:
                return data[: self._randomness.randrange(len(data))]
        return data

    def open(self, key: str) -> BinaryIO:
        self._before("open", key)
        return self.inner.open(key)

    def head(self, key: str) -> ObjectInfo | None:
        self._before("head", key)
        return self.inner.head(key)

    def delete(self, keys: Iterable[str]) -> None:
        doomed = list(keys)
        for key in doomed:
            self._before("delete", key)
            self.inner.delete([key])

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        self._before("list", prefix)
        return self.inner.list(prefix, after=after, limit=limit)

    def list_directories(self, prefix: str = "") -> Iterator[str]:
        self._before("list", prefix)
        return self.inner.list_directories(prefix)

    def _write(self, operation: str, key: str, write: Callable[[], T]) -> T:
        self._before(operation, key)
        if self._hits(self.rates.phantom, operation, key, "phantom"):
            raise BucketOutcomeUnknownError("injected: the request was lost")
        result = write()
        if self._hits(self.rates.after, operation, key, "after"):
            raise BucketOutcomeUnknownError("injected: the reply was lost")
        return result

    def _before(self, operation: str, key: str) -> None:
        if self.rates.latency_s:
            with self._lock:
                wait = self._randomness.uniform(0, self.rates.latency_s)
            time.sleep(wait)
        if self._hits(self.rates.before, operation, key, "before"):
            raise BucketUnavailableError("injected: the bucket is away")

    def _hits(self, chance: float, operation: str, key: str, fault: str) -> bool:
        with self._lock:
            hit = chance > 0 and self._randomness.random() < chance
            if hit:
                self.faults.append((operation, key, fault))
            return hit
