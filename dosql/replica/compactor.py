"""Compactor: merges the files of one object into fewer, and makes its snapshots.

What a merge writes follows from its inputs alone, pages, header and name. So it may be repeated
after a crash at any point, and two processes that merge the same files write the same. Nothing
is removed here: until retention removes them, the inputs restore what they did before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from dosql.limits import COMPACTION_MEMORY_BYTES
from dosql.replica.bucket_errors import BucketOutcomeUnknownError, PreconditionFailedError
from dosql.replica.compaction import Merged, merge
from dosql.replica.history import History, look
from dosql.replica.merge_inputs import open_inputs
from dosql.replica.plan import LEVEL_SPAN_MS, SNAPSHOT_LEVEL, FileInfo
from dosql.replica.replica import Replica, metadata_of


class Stopped(Exception):
    """The work was given up on demand; what it had finished is kept."""


class Compactor:
    """Blocking; one thread at a time works on one object."""

    def __init__(
        self,
        scratch: Path,
        *,
        is_stopped: Callable[[], bool] = lambda: False,
        memory_bytes: int = COMPACTION_MEMORY_BYTES,
    ) -> None:
        """``scratch``: a directory for temporary files. ``is_stopped`` is asked about once per
        megabyte, and before anything is written to the bucket."""
        self._scratch = scratch
        self._is_stopped = is_stopped
        self._memory_bytes = memory_bytes

    def compact(self, replica: Replica, history: History, level: int, until_ms: int) -> int:
        """Merge what lies in finished spans of ``level`` into one file per span; how many files
        were written. The history is brought up to date file by file, also if this fails.

        Raises:
            CorruptError: an input is damaged or gone.
            Stopped, and what buckets raise.
        """
        written = 0
        for run in reversed(list(history.runs(level, until_ms))):
            inputs = history.chain[run]
            merged, file = self.write(replica, inputs, level)
            history.chain[run] = [file]
            if run.stop is None or file is history.chain[-1]:
                history.database_bytes = merged.header.commit * merged.header.page_size
            self._forget(replica, inputs)
            written += 1
        return written

    def snapshot(self, replica: Replica, history: History, until_ms: int) -> FileInfo | None:
        """Make a snapshot of what spans that ended before ``until_ms`` hold, if it is time for one.

        It is merged in the bucket, not copied from the live database: the object goes on
        meanwhile, and every file that its newest state depends on is verified on the way. Raises:
        as `compact`.
        """
        count = history.settled(until_ms)
        if not history.wants_snapshot(count):
            return None
        assert history.base is not None
        inputs = [history.base, *history.chain[:count]]
        merged, file = self.write(replica, inputs, SNAPSHOT_LEVEL)
        history.base, history.chain[:count] = file, []
        history.database_bytes = merged.header.commit * merged.header.page_size
        return file

    def write(
        self, replica: Replica, inputs: Sequence[FileInfo], level: int
    ) -> tuple[Merged, FileInfo]:
        """Merge consecutive files, oldest first, into one of the level. Raises: as `compact`."""
        with ExitStack() as stack:
            out = stack.enter_context(
                tempfile.SpooledTemporaryFile(self._memory_bytes, dir=self._scratch)
            )
            files = open_inputs(
                replica,
                inputs,
                stack,
                scratch=self._scratch,
                stop=self._check_stop,
                memory_bytes=self._memory_bytes,
            )

            def write(data: bytes) -> None:
                self._check_stop()
                out.write(data)

            merged = merge(files, write)
            out.seek(0)
            self._check_stop()
            put_merged(replica, level, merged, cast("BinaryIO", out))
            if replica.recent is not None and level != SNAPSHOT_LEVEL and not _on_disk(out):
                out.seek(0)
                key = replica.layout.key(level, merged.header.min_txid, merged.header.max_txid)
                replica.recent.note(key, out.read())
        header = merged.header
        return merged, FileInfo(
            level, header.min_txid, header.max_txid, merged.size, header.timestamp_ms
        )

    def _forget(self, replica: Replica, inputs: Sequence[FileInfo]) -> None:
        if replica.recent is not None:
            for each in inputs:
                replica.recent.forget(replica.key(each))

    def _check_stop(self) -> None:
        if self._is_stopped():
            raise Stopped


def put_merged(
    replica: Replica, level: int, merged: Merged, data: BinaryIO, *, replace: bool = False
) -> None:
    """Store a merged file, which has to be there when this returns. One of this name and size is
    taken for it, unless it is to be replaced."""
    header = merged.header
    key = replica.layout.key(level, header.min_txid, header.max_txid)
    start = data.tell()
    try:
        replica.bucket.put(key, data, if_absent=not replace, metadata=metadata_of(header))
    except (PreconditionFailedError, BucketOutcomeUnknownError) as error:
        stored = replica.bucket.head(key)
        if stored is not None and stored.size == merged.size:
            return
        if isinstance(error, BucketOutcomeUnknownError):
            raise
        data.seek(start)  # another version of LZ4 made it smaller or larger; it is as good
        replica.bucket.put(key, data, metadata=metadata_of(header))


def compact(
    replica: Replica, level: int, until_ms: int, *, scratch: Path, history: History | None = None
) -> int:
    """Merge the files of an object into files of ``level`` once, with nothing known before; how
    many were written. Raises: as `Compactor.compact`, and as `look`."""
    if level not in LEVEL_SPAN_MS:
        raise ValueError(f"{level} is no level of merged files")
    known = look(replica) if history is None else history
    return Compactor(scratch).compact(replica, known, level, until_ms)


def _on_disk(file: tempfile.SpooledTemporaryFile[bytes]) -> bool:
    return bool(file._rolled)  # type: ignore[attr-defined]  # noqa: SLF001 - no public name
