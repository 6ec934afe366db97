"""SegmentReader: the groups in one file of the log, and what is no group any more.

A group that is torn at the very end was never acknowledged. One in front of an intact group was,
and that it cannot be read is damage.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dosql.log.disk import DiskFile
from dosql.log.records import (
    ALIGNMENT,
    GROUP_HEADER_BYTES,
    MAGIC,
    DamagedBatch,
    DamagedGroupError,
    Found,
    decode_body,
    decode_group_header,
)
from dosql.log.segments import Segment, damaged


class Group(msgspec.Struct, frozen=True):
    """What one sync made durable together."""

    sequence: int
    end: int
    """Offset of the next group."""
    records: list[Found]

    def numbered(self) -> Iterator[tuple[int, Found]]:
        """Its records, with its number."""
        return ((self.sequence, record) for record in self.records)


class SegmentReader:
    """One open segment of the log ``log_id``. Closing the file is the caller's."""

    def __init__(self, file: DiskFile, segment: Segment, log_id: int) -> None:
        self._file = file
        self._segment = segment
        self._log_id = log_id

    def groups(self, end: int | None) -> Iterator[Group]:
        """All of them up to ``end``, or, where that is not known, up to a torn one.

        Raises:
            CorruptError: ``log_damaged``: a durable group cannot be read.
        """
        offset, sequence, size = 0, self._segment.first_sequence, self._file.size()
        while offset < (size if end is None else end):
            group = self._read(offset, sequence, sealed=end is not None)
            if group is None:
                if end is not None:
                    raise damaged(self._unreadable(offset))
                self._refuse_groups_behind(offset, sequence)
                return
            yield group
            offset = group.end
            sequence += 1

    def _read(self, offset: int, sequence: int, *, sealed: bool) -> Group | None:
        """The group ``sequence`` at ``offset``; None if it is not there, or not whole.

        With a damaged page in it, it still counts if it is known to have been durable: because
        the segment is sealed behind it, or because the next group stands behind it.
        """
        file = self._file
        header = decode_group_header(file.pread(GROUP_HEADER_BYTES, offset))
        if header is None or header.sequence != sequence or header.log_id != self._log_id:
            return None
        try:
            records = decode_body(
                header, file.pread(header.body_bytes, offset + GROUP_HEADER_BYTES)
            )
        except DamagedGroupError:
            return None
        end = offset + header.padded_bytes
        if any(isinstance(record, DamagedBatch) for record in records) and not sealed:
            follower = decode_group_header(file.pread(GROUP_HEADER_BYTES, end))
            if follower is None or follower.sequence != sequence + 1:
                return None
        return Group(sequence, end, records)

    def _refuse_groups_behind(self, offset: int, sequence: int) -> None:
        """Raise if a newer group lies behind ``offset``: then what is there was durable."""
        rest = self._file.pread(self._file.size() - offset, offset)
        at = rest.find(MAGIC)
        while at >= 0:
            header = decode_group_header(rest, at) if at % ALIGNMENT == 0 else None
            if header is not None and header.log_id == self._log_id and header.sequence > sequence:
                raise damaged(
                    f"{self._unreadable(offset)}, though commits follow at byte {offset + at}"
                )
            at = rest.find(MAGIC, at + 1)

    def _unreadable(self, offset: int) -> str:
        return f"segment {self._segment.number} cannot be read at byte {offset}"
