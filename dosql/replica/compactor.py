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

import msgspec
from msgspec.structs import replace

from dosql.limits import COMPACTION_MEMORY_BYTES
from dosql.replica.bucket_errors import BucketOutcomeUnknownError, PreconditionFailedError
from dosql.replica.chain import Chain, look
from dosql.replica.compaction import Merged, merge
from dosql.replica.merge_inputs import open_inputs
from dosql.replica.plan import LEVEL_SPAN_MS, SNAPSHOT_LEVEL, FileInfo
from dosql.replica.recent_files import RECENT_BYTES_MAX
from dosql.replica.replica import Replica, metadata_of


class Stopped(Exception):
    """The work was given up on demand; what it had finished is kept."""


class Tally(msgspec.Struct):
    """What was done."""

    compactions: int = 0
    """Merged files written, but for snapshots."""
    snapshots: int = 0
    inputs: int = 0
    """Files that were merged into others and need not be kept for ever."""
    input_bytes: int = 0


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
        self.tally = Tally()

    def compact(self, replica: Replica, chain: Chain, level: int, until_ms: int) -> int:
        """Merge what lies in spans of ``level`` that have ended at ``until_ms`` into one file per
        span; how many were written. The chain is brought up to date with every file.

        Raises:
            CorruptError: an input is damaged or gone.
            Stopped, and what buckets raise.
        """
        self._date(replica, chain, level, until_ms)
        runs = chain.runs(level, until_ms)
        for run in runs:
            inputs = chain.files[run]
            merged, file = self.write(replica, inputs, level)
            chain.files[run] = [file]
            chain.sized(file.max_txid, merged.header.commit * merged.header.page_size)
            _forget(replica, inputs)
            self.tally.compactions += 1
            self.tally.inputs += len(inputs)
            self.tally.input_bytes += sum(each.size for each in inputs)
        return len(runs)

    def _date(self, replica: Replica, chain: Chain, level: int, until_ms: int) -> None:
        """Look up the times of files that seem to make up a run: files that were stored together
        may hold commits of different spans, which must be kept apart."""
        while chain.undated:
            runs = chain.runs(level, until_ms)
            spots = [at for run in runs for at in range(run.start, run.stop)]
            spots = [at for at in spots if chain.files[at] in chain.undated]
            if not spots:
                return
            for at in spots:
                self._check_stop()
                file = chain.files[at]
                timestamp_ms = replica.header(file).timestamp_ms
                chain.files[at] = replace(file, timestamp_ms=timestamp_ms)
                chain.undated.discard(file)

    def snapshot(self, replica: Replica, chain: Chain, until_ms: int) -> FileInfo | None:
        """Make a snapshot of what spans of level 1 hold that have ended at ``until_ms``, if it is
        time for one. Later merges begin behind it. Raises: as `compact`.

        It is merged in the bucket, not copied from the live database: the object goes on
        meanwhile, and every file that its newest state depends on is verified on the way.
        """
        count = chain.settled(until_ms)
        if not chain.wants_snapshot(count):
            return None
        assert chain.base is not None
        merged, file = self.write(replica, [chain.base, *chain.files[:count]], SNAPSHOT_LEVEL)
        self.tally.snapshots += 1
        chain.undated.difference_update(chain.files[:count])
        chain.base, chain.files[:count] = file, []
        chain.sized(file.max_txid, merged.header.commit * merged.header.page_size)
        return file

    def write(
        self, replica: Replica, inputs: Sequence[FileInfo], level: int
    ) -> tuple[Merged, FileInfo]:
        """Merge consecutive files, oldest first, into one of the level. Raises: as `compact`."""
        with ExitStack() as stack:
            out = stack.enter_context(
                tempfile.SpooledTemporaryFile(self._memory_bytes, dir=str(self._scratch))
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
            if replica.recent is not None and merged.size <= RECENT_BYTES_MAX:
                out.seek(0)
                replica.recent.note(_key(replica, level, merged), out.read())
        header = merged.header
        return merged, FileInfo(
            level, header.min_txid, header.max_txid, merged.size, header.timestamp_ms
        )

    def _check_stop(self) -> None:
        if self._is_stopped():
            raise Stopped


def put_merged(
    replica: Replica, level: int, merged: Merged, data: BinaryIO, *, replace: bool = False
) -> None:
    """Store a merged file, which has to be there when this returns. One of this name and size is
    taken for it, unless it is to be replaced."""
    key, header = _key(replica, level, merged), merged.header
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
    replica: Replica, level: int, until_ms: int, *, scratch: Path, chain: Chain | None = None
) -> int:
    """Merge the files of an object into files of ``level`` once, with nothing known before; how
    many were written. Raises: as `Compactor.compact`, and as `look`."""
    if level not in LEVEL_SPAN_MS:
        raise ValueError(f"{level} is no level of merged files")
    known = look(replica) if chain is None else chain
    return Compactor(scratch).compact(replica, known, level, until_ms)


def _key(replica: Replica, level: int, merged: Merged) -> str:
    return replica.layout.key(level, merged.header.min_txid, merged.header.max_txid)


def _forget(replica: Replica, inputs: Sequence[FileInfo]) -> None:
    if replica.recent is not None:
        for each in inputs:
            replica.recent.forget(replica.key(each))
