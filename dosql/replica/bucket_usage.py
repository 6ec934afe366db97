"""How many requests went to a bucket: for the metrics, and for tests that demand none."""

from __future__ import annotations

import threading
from typing import Literal

import msgspec
from msgspec.structs import replace

RequestKind = Literal["puts", "gets", "heads", "lists", "deletes"]


class BucketUsage(msgspec.Struct, frozen=True):
    """Requests since the bucket was opened. A repeated attempt counts again: it costs again."""

    puts: int = 0
    gets: int = 0
    heads: int = 0
    lists: int = 0
    """Pages, not listings."""
    deletes: int = 0
    """Requests, not keys."""
    bytes_up: int = 0
    """Of contents, without headers."""
    bytes_down: int = 0

    @property
    def requests(self) -> int:
        """All kinds together."""
        return self.puts + self.gets + self.heads + self.lists + self.deletes

    def __sub__(self, earlier: BucketUsage) -> BucketUsage:
        names = self.__struct_fields__
        return BucketUsage(**{name: getattr(self, name) - getattr(earlier, name) for name in names})


class UsageCounter:
    """Thread-safe; read it by `usage`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = BucketUsage()

    @property
    def usage(self) -> BucketUsage:
        """Of this moment; it does not change any more."""
        return self._usage

    def request(self, kind: RequestKind, *, up: int = 0, down: int = 0) -> None:
        """One request was sent, with so many bytes of content in it."""
        with self._lock:
            now = self._usage
            self._usage = replace(
                now,
                **{kind: getattr(now, kind) + 1},
                bytes_up=now.bytes_up + up,
                bytes_down=now.bytes_down + down,
            )

    def received(self, count: int) -> None:
        """``count`` more bytes of content arrived, of a request counted before."""
        with self._lock:
            self._usage = replace(self._usage, bytes_down=self._usage.bytes_down + count)
