"""Database files on the caller's disk: written whole or not at all, read in pieces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

CHUNK_BYTES = 256 * 1024
"""Large enough that the loop costs nothing, small enough not to block an event loop."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes moved so far and the total, None while it is not known."""


class PartFile:
    """Writes beside the target and takes its name only on `commit`; else leaves no trace."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part = target.with_name(f"{target.name}.{os.getpid()}.part")
        self._file = self._part.open("wb")
        self.size_bytes = 0

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self.size_bytes += len(chunk)

    def commit(self) -> None:
        """Durable under its own name when this returns; an older file there is replaced."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._target)


def file_bytes(path: Path) -> int:
    """The file's size."""
    return path.stat().st_size


def read_chunks(path: Path) -> Iterator[bytes]:
    """The file's content in pieces of at most `CHUNK_BYTES`."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
