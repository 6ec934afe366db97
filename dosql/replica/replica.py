"""Replica: the files of one object in the bucket. Blocking: for worker threads.

The raw level is a fenced log: a batch is written only if its name is still free, so of two
writers that both hold the object to be theirs one fails, whatever their clocks say. Whoever takes
an object over writes an empty file, the *fence*, under the next name first.

That holds because the next name follows from the newest file alone, for whoever reads it, and
nobody writes another:

- Behind a file ``a-b`` it is ``b+1-b+1``. What is sent there may be more than the batch *b+1*:
  several batches as one, or a whole image. Its header then says how far it *reaches*.
- Behind a file ``a-b`` that reaches *r* it is ``b+1-r``: a file without pages, which closes the
  gap in the numbers.

So two writers never add to the same chain, at whatever moment one of them is paused or dies, and
nothing written ever has to be taken back.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from dosql.errors import CorruptError, NotFoundError
from dosql.pages import PageSet
from dosql.replica.bucket import TIMESTAMP_METADATA, Bucket
from dosql.replica.bucket_errors import (
    BucketOutcomeUnknownError,
    KeyMissingError,
    PreconditionFailedError,
)
from dosql.replica.image import Image, write_image
from dosql.replica.layout import LEVELS, Layout
from dosql.replica.ltx import HEADER_BYTES, Decoder, Header, encode
from dosql.replica.plan import RAW_LEVEL, FileInfo, restore_plan, restore_plans
from dosql.replica.prefetch import prefetched
from dosql.replica.reading import OnProgress, Reading, unwatched
from dosql.replica.recent_files import RecentFiles


class Fenced(Exception):
    """Somebody else has taken the object over: what this process still holds of it is void."""


class Head(msgspec.Struct, frozen=True):
    """The newest file of the raw level."""

    txid: int
    epoch: int
    """Of its writer; 0: not ours."""
    page_size: int
    commit: int
    timestamp_ms: int
    reach: int = 0
    """The state that it brings, if that is later than `txid`: see `Header.reaching`."""

    @property
    def is_open(self) -> bool:
        """Whether the file is missing that closes the gap in its numbers."""
        return self.reach > self.txid


class Replica:
    """One object's."""

    def __init__(self, bucket: Bucket, layout: Layout, recent: RecentFiles | None = None) -> None:
        """``recent``: gets what is written, for the compactor."""
        self.bucket = bucket
        self.layout = layout
        self.recent = recent

    # --- writing ------------------------------------------------------------------------------

    def put(
        self, pages: PageSet, min_txid: int, max_txid: int, *, timestamp_ms: int, epoch: int
    ) -> list[FileInfo]:
        """Add the batches ``min_txid`` to ``max_txid`` to the raw level, behind ``min_txid - 1``.
        The files: one, and for several batches a second one that closes the gap.

        Writing the same again is no error.

        Raises:
            Fenced: another file has the name.
            UnavailableError: not written, or nobody knows; call again with the same arguments.
        """
        header = Header(pages.page_size, pages.commit, min_txid, min_txid, timestamp_ms, epoch)
        if max_txid > min_txid:
            header = header.reaching(max_txid)
        data = encode(header, pages.pages)
        self._put_raw(header, data)
        return [self._noted(header, data), *self._closed(header)]

    def _noted(self, header: Header, data: bytes) -> FileInfo:
        file = _info(header, len(data))
        if self.recent is not None:
            self.recent.note(self.key(file), data)
        return file

    def _closed(self, header: Header) -> list[FileInfo]:
        """Close the gap behind a file."""
        if header.reach == header.max_txid:
            return []
        closing = Header(
            header.page_size,
            header.commit,
            header.max_txid + 1,
            header.reach,
            header.timestamp_ms,
            header.node_id,
        )
        data = encode(closing, {})
        self._put_raw(closing, data)
        return [self._noted(closing, data)]

    def put_image(self, header: Header, source: BinaryIO, size: int) -> list[FileInfo]:
        """Add a file of the raw level that is too large for memory. Returns and raises: as
        `put`."""
        key = self.layout.key(RAW_LEVEL, header.min_txid, header.max_txid)
        try:
            self.bucket.put(key, source, if_absent=True, metadata=metadata_of(header))
        except (PreconditionFailedError, BucketOutcomeUnknownError):
            stored = self.bucket.head(key)
            if stored is None:
                raise
            if stored.size != size or self._header(key) != header:
                raise Fenced from None
        return [_info(header, size), *self._closed(header)]

    def fence(self, head: Head, *, timestamp_ms: int, epoch: int) -> Head:
        """Take the object over behind ``head``, or close the gap that it left; the new head.

        Raises:
            Fenced: the other side, or a third, was faster: look at the head again.
        """
        header = Header(
            head.page_size,
            head.commit,
            head.txid + 1,
            head.reach if head.is_open else head.txid + 1,
            max(timestamp_ms, head.timestamp_ms),
            epoch,
        )
        self._put_raw(header, encode(header, {}))
        return Head(header.max_txid, epoch, header.page_size, header.commit, header.timestamp_ms)

    def _put_raw(self, header: Header, data: bytes) -> None:
        key = self.layout.key(RAW_LEVEL, header.min_txid, header.max_txid)
        try:
            self.bucket.put(key, data, if_absent=True, metadata=metadata_of(header))
        except PreconditionFailedError:
            if self._stored(key) != data:  # else: our own, whose reply was lost
                raise Fenced from None
        except BucketOutcomeUnknownError:
            stored = self._stored(key)
            if stored is None:
                raise
            if stored != data:
                raise Fenced from None

    def remove(self) -> None:
        """Remove every file: the object has ceased to exist."""
        for level in LEVELS:
            found = self.bucket.list(self.layout.level_prefix(level))
            self.bucket.delete([each.key for each in found])
        self.bucket.delete([self.layout.link_key])

    def _stored(self, key: str) -> bytes | None:
        try:
            return self.bucket.get(key)
        except KeyMissingError:
            return None

    # --- reading ------------------------------------------------------------------------------

    def head(self, near: int = 0) -> Head | None:
        """The newest file of the raw level, None if there is none.

        ``near``: a TXID that is probably not far from it; makes the listing short.

        Raises:
            CorruptError: its header is damaged.
        """
        level = self.layout.level_prefix(RAW_LEVEL)
        found = self._newest(level, f"{level}{near:016x}") if near > 0 else None
        return found or self._newest(level, "")

    def _newest(self, level: str, after: str) -> Head | None:
        best: tuple[int, int, str] | None = None
        for each in self.bucket.list(level, after=after):
            span = self.layout.span(RAW_LEVEL, each.key)
            if span is not None and (best is None or (span[1], -span[0]) > (best[1], -best[0])):
                best = (*span, each.key)
        if best is None:
            return None
        return _head(self._header(best[2]))

    def files(self, after_txid: int = 0) -> list[FileInfo]:
        """All files of all levels that end behind ``after_txid``, without their times."""
        found: list[FileInfo] = []
        for each in self.bucket.list(self.layout.root):
            place = self.layout.place(each.key)
            if place is not None and place[2] > after_txid:
                found.append(FileInfo(*place, each.size))
        return found

    def head_of(self, files: Iterable[FileInfo]) -> Head | None:
        """The newest file of the raw level among ``files``; None: there is none.

        Raises CorruptError: its header is damaged.
        """
        raw = [each for each in files if each.level == RAW_LEVEL]
        if not raw:
            return None
        newest = max(raw, key=lambda each: (each.max_txid, -each.min_txid))
        return _head(self.header(newest))

    def listing(self, level: int, from_txid: int = 1) -> list[FileInfo]:
        """The files of one level that begin at ``from_txid`` or later, by their first TXID. Their
        times are those at which they were stored."""
        prefix = self.layout.level_prefix(level)
        after = f"{prefix}{from_txid:016x}" if from_txid > 1 else ""
        found: list[FileInfo] = []
        for each in self.bucket.list(prefix, after=after):
            span = self.layout.span(level, each.key)
            if span is not None:
                found.append(FileInfo(level, *span, each.size, each.modified_ms))
        return found

    def dated(self) -> list[FileInfo]:
        """All files of all levels, as `listing` gives them."""
        return [each for level in LEVELS for each in self.listing(level)]

    def header(self, file: FileInfo) -> Header:
        """The header of one file. Raises CorruptError if it is damaged or gone."""
        return self._header(self.key(file))

    def key(self, file: FileInfo) -> str:
        """Where the file is."""
        return self.layout.key(file.level, file.min_txid, file.max_txid)

    def _header(self, key: str) -> Header:
        try:
            return Header.unpack(self.bucket.get(key, start=0, length=HEADER_BYTES))
        except KeyMissingError:
            raise CorruptError("A file of the replica is gone.", code="replica_gap") from None

    def txid_at(self, at_ms: int, files: Iterable[FileInfo]) -> int:
        """The newest state, of those that ``files`` can give, that is not younger than ``at_ms``.

        Times grow with the TXIDs, so some ten headers are read, whatever the number of files.

        Raises:
            NotFoundError: ``restore_point_not_found``: all states that are kept are younger.
        """
        ends = {each.max_txid: each for each in files}
        order = sorted(ends)
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if self.header(ends[order[middle]]).timestamp_ms <= at_ms:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            raise NotFoundError(
                "The replica does not hold a state that old.", code="restore_point_not_found"
            )
        return order[low - 1]

    def open(self, file: FileInfo) -> Decoder:
        """The file, to be read once. Raises CorruptError if it is gone or none."""
        return Decoder(self.stream(file).read)

    def stream(self, file: FileInfo) -> BinaryIO:
        """The bytes of the file, to be closed. Raises CorruptError if it is gone."""
        try:
            return self.bucket.open(self.key(file))
        except KeyMissingError:
            raise CorruptError("A file of the replica is gone.", code="replica_gap") from None

    def write_image(
        self,
        out: BinaryIO,
        txid: int | None = None,
        *,
        files: list[FileInfo] | None = None,
        on_progress: OnProgress = unwatched,
    ) -> Image:
        """Write the database as of ``txid`` (None: the newest) to ``out``, an empty file.

        A damaged file is avoided if others hold the same; ``on_progress`` then begins anew.

        Raises:
            NotFoundError: ``restore_point_not_found``: there is no replica, or not this state.
            CorruptError: it cannot be had without a damaged file.
        """
        known = self.files() if files is None else files
        bad: list[FileInfo] = []
        failure: CorruptError | None = None
        restore_plan(known, txid)
        for plan in restore_plans(known, bad, txid):
            out.seek(0)
            out.truncate()
            applied: list[FileInfo] = []
            reading = Reading(sum(each.size for each in plan), on_progress)

            def opened(
                plan: list[FileInfo] = plan,
                applied: list[FileInfo] = applied,
                reading: Reading = reading,
            ) -> Generator[Decoder, None, None]:
                with closing(prefetched(plan, self.stream)) as streams:
                    for each, stream in streams:
                        yield Decoder(reading.of(stream.read))
                        applied.append(each)

            try:
                # Closed here: its threads must not end wherever the garbage collector runs.
                with closing(opened()) as decoders:
                    return write_image(decoders, out)
            except CorruptError as error:
                failure = error
                bad.append(plan[min(len(applied), len(plan) - 1)])
        assert failure is not None
        raise failure


def _head(header: Header) -> Head:
    return Head(
        header.max_txid,
        header.node_id,
        header.page_size,
        header.commit,
        header.timestamp_ms,
        header.reach,
    )


def _info(header: Header, size: int) -> FileInfo:
    return FileInfo(RAW_LEVEL, header.min_txid, header.max_txid, size, header.timestamp_ms)


def metadata_of(header: Header) -> dict[str, str]:
    """What is stored beside the file."""
    at = datetime.fromtimestamp(header.timestamp_ms / 1000, UTC)
    return {TIMESTAMP_METADATA: at.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
