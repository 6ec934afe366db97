"""StateCache: past states of objects as database files, kept for a while.

Invariants:
- A state is built once, however many ask for it at a time.
- What is being read stays; beyond that, the least recently used goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dosql.log.records import ObjectKey

STATES_MAX = 64
STATES_BYTES_MAX = 1024 * 1024 * 1024
"""Of all states that nobody reads at the moment."""

Make = Callable[[Path], Awaitable[None]]
"""Writes the state to a new file, or raises and leaves none."""


@dataclass(slots=True)
class _Entry:
    path: Path
    made: asyncio.Task[None]
    users: int = 0
    size: int = 0


class StateCache:
    """Files in one directory, which is emptied at the start of the process."""

    def __init__(
        self,
        directory: Path,
        *,
        count_max: int = STATES_MAX,
        bytes_max: int = STATES_BYTES_MAX,
    ) -> None:
        self._directory = directory
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[tuple[ObjectKey, int], _Entry] = OrderedDict()
        self._numbers = 0
        self.built = 0
        """States built since the start."""

    def __len__(self) -> int:
        """How many states there are, or are being built."""
        return len(self._entries)

    def holds(self, key: ObjectKey, txid: int) -> bool:
        """Whether the state is there, or being built."""
        return (key, txid) in self._entries

    @asynccontextmanager
    async def lease(self, key: ObjectKey, txid: int, make: Make) -> AsyncIterator[Path]:
        """The file of the state; it stays as it is, and where it is, as long as this lasts.

        Raises what ``make`` raised.
        """
        entry = self._entries.get((key, txid))
        if entry is None:
            entry = self._begin(key, txid, make)
        self._entries.move_to_end((key, txid))
        entry.users += 1
        try:
            await asyncio.shield(entry.made)
            yield entry.path
        finally:
            entry.users -= 1
            self._trim()

    def _begin(self, key: ObjectKey, txid: int, make: Make) -> _Entry:
        self._numbers += 1
        path = self._directory / f"state-{self._numbers}-{txid:x}-{key.filename}"

        async def build() -> None:
            await make(path)
            entry.size = path.stat().st_size

        entry = _Entry(path, asyncio.get_running_loop().create_task(build()))
        self._entries[key, txid] = entry

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() or task.exception() is not None:
                if self._entries.get((key, txid)) is entry:
                    del self._entries[key, txid]
            else:
                self.built += 1
                self._trim()

        entry.made.add_done_callback(ended)
        return entry

    def forget(self, key: ObjectKey) -> None:
        """The object is gone: so are its states, but for those that are being read."""
        for of, entry in list(self._entries.items()):
            if of[0] == key and entry.made.done():
                del self._entries[of]
                entry.path.unlink(missing_ok=True)  # who has it open reads on

    def _trim(self) -> None:
        idle = [
            (of, each) for of, each in self._entries.items() if not each.users and each.made.done()
        ]
        count, size = len(self._entries), sum(each.size for _, each in idle)
        for of, entry in idle:
            if count <= self._count_max and size <= self._bytes_max:
                return
            del self._entries[of]
            entry.path.unlink(missing_ok=True)
            count -= 1
            size -= entry.size
