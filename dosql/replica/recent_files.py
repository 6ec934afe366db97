"""RecentFiles: what was written to the bucket a moment ago, so that a merge need not read it."""

from __future__ import annotations

import threading
from collections import OrderedDict

from dosql.limits import REPLICA_RECENT_BYTES_MAX

RECENT_BYTES_MAX = 256 * 1024
"""Of one file; larger ones would push too many others out."""


class RecentFiles:
    """Contents by key, the oldest given up first. Thread-safe.

    Only for keys whose content never changes, and never to decide who owns an object.
    """

    def __init__(self, bytes_max: int = REPLICA_RECENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """What it holds."""
        return self._bytes

    def note(self, key: str, data: bytes) -> None:
        """The bucket has this now."""
        if len(data) > RECENT_BYTES_MAX:
            return
        with self._lock:
            self._remove(key)
            self._files[key] = data
            self._bytes += len(data)
            while self._bytes > self._bytes_max:
                self._remove(next(iter(self._files)))

    def get(self, key: str) -> bytes | None:
        """The content, if it is still here."""
        return self._files.get(key)

    def forget(self, key: str) -> None:
        """Nobody will ask for it again."""
        with self._lock:
            self._remove(key)

    def _remove(self, key: str) -> None:
        data = self._files.pop(key, None)
        if data is not None:
            self._bytes -= len(data)
