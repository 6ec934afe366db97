"""The inputs of a merge, all open at the same time: any number of files in little memory.

Small ones are in memory, one is read as a stream while it is merged, and what is left over waits in
a temporary file: a thousand connections would time out while their turn has not come.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from dosql.errors import CorruptError
from dosql.limits import COMPACTION_MEMORY_BYTES
from dosql.replica.codec import corrupt
from dosql.replica.ltx import Decoder
from dosql.replica.plan import FileInfo
from dosql.replica.replica import Replica

_COPY_BYTES = 1 << 20
_READ_BYTES_MIN, _READ_BYTES_MAX = 4 << 10, 256 << 10


def open_inputs(
    replica: Replica,
    files: Sequence[FileInfo],
    stack: ExitStack,
    *,
    scratch: Path,
    stop: Callable[[], None],
    memory_bytes: int = COMPACTION_MEMORY_BYTES,
) -> list[Decoder]:
    """The files, in their order, to be read once, until ``stack`` is closed.

    ``stop`` is called between the files; what it raises goes to the caller.

    Raises:
        CorruptError: a file is gone, or its header is not what its name says.
    """
    return [
        _checked(Decoder(read), file)
        for file, read in zip(
            files, _Inputs(replica, stack, scratch, memory_bytes).open(files, stop), strict=True
        )
    ]


def _checked(decoder: Decoder, file: FileInfo) -> Decoder:
    header = decoder.header
    if (header.min_txid, header.max_txid) != (file.min_txid, file.max_txid):
        raise corrupt("its name and its header differ")
    return decoder


class _Inputs:
    def __init__(
        self, replica: Replica, stack: ExitStack, scratch: Path, memory_bytes: int
    ) -> None:
        self._replica = replica
        self._stack = stack
        self._scratch = scratch
        self._memory = memory_bytes
        self._spill: io.BufferedRandom | None = None
        self._read_bytes = _READ_BYTES_MAX

    def open(
        self, files: Sequence[FileInfo], stop: Callable[[], None]
    ) -> list[Callable[[int], bytes]]:
        """A reader for each."""
        in_memory = self._smallest(files)
        large = [file for file in files if file not in in_memory]
        streamed = max(large, key=lambda file: file.size, default=None)
        self._read_bytes = min(
            _READ_BYTES_MAX, max(_READ_BYTES_MIN, self._memory // max(1, len(large)))
        )
        readers: list[Callable[[int], bytes]] = []
        for file in files:
            stop()
            if file in in_memory:
                readers.append(io.BytesIO(self._whole(file)).read)
            elif file is streamed:
                readers.append(self._stack.enter_context(self._replica.stream(file)).read)
            else:
                readers.append(self._spilled(file))
        return readers

    def _smallest(self, files: Sequence[FileInfo]) -> set[FileInfo]:
        chosen: set[FileInfo] = set()
        left = self._memory
        for file in sorted(files, key=lambda each: each.size):
            left -= file.size
            if left < 0:
                break
            chosen.add(file)
        return chosen

    def _whole(self, file: FileInfo) -> bytes:
        recent = self._replica.recent
        data = recent.get(self._replica.key(file)) if recent is not None else None
        if data is not None:
            return data
        with self._replica.stream(file) as stream:
            return stream.read()

    def _spilled(self, file: FileInfo) -> Callable[[int], bytes]:
        if self._spill is None:
            made = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - the stack closes it
            self._spill = self._stack.enter_context(made)
        spill = self._spill
        start = spill.seek(0, io.SEEK_END)
        with self._replica.stream(file) as stream:
            while piece := stream.read(_COPY_BYTES):
                spill.write(piece)
        spill.flush()
        return _Part(spill.fileno(), start, spill.tell(), self._read_bytes).read


class _Part:
    """A range of a file that others read too."""

    def __init__(self, descriptor: int, start: int, end: int, read_bytes: int) -> None:
        self._descriptor = descriptor
        self._at = start
        self._end = end
        self._read_bytes = read_bytes

    def read(self, count: int) -> bytes:
        """Up to so many bytes."""
        count = min(count, self._end - self._at, self._read_bytes)
        data = os.pread(self._descriptor, count, self._at) if count > 0 else b""
        if not data and count > 0:
            raise CorruptError("A temporary file was cut off.", code="replica_corrupt")
        self._at += len(data)
        return data
