"""The files of a log directory: the manifest, the segments it lists, and a spare.

Invariants:
- The manifest is replaced atomically and is durable before a segment it names is written to, and
  before a segment it no longer names goes away. So a listed file that is missing is damage, and a
  file that is not listed is none of ours.
- Every segment but the last has an ``end``: bytes behind it were never acknowledged.
"""

from __future__ import annotations

import json
import threading
import zlib
from pathlib import Path

import msgspec

from dosql.errors import CorruptError
from dosql.limits import LOG_SEGMENT_BYTES
from dosql.log.disk import Disk, DiskFile

_FORMAT = 1


class Segment(msgspec.Struct, frozen=True):
    """One file of the log."""

    number: int
    first_sequence: int
    """Sequence of its first group; older ones in it are left from an earlier use of the file."""
    end: int | None = None
    """Bytes that count, once the segment is closed."""


class Manifest(msgspec.Struct, frozen=True):
    """Which segments make up the log, oldest first; the last one is written to."""

    log_id: int
    segments: tuple[Segment, ...]


def damaged(what: str) -> CorruptError:
    """The error that stops a start: acknowledged commits may be gone."""
    return CorruptError(
        f"The commit log is damaged: {what}. Acknowledged commits may be missing, so nothing is "
        "served. Restore the log directory from a copy, or see 'Log damage' in docs/operations.md.",
        code="log_damaged",
    )


class SegmentFiles:
    """Names, creates, lists and removes the files. Not thread-safe, but for `prepare_spare`."""

    def __init__(self, directory: Path, disk: Disk, segment_bytes: int = LOG_SEGMENT_BYTES) -> None:
        self.directory = directory
        self.disk = disk
        self._segment_bytes = segment_bytes
        self._spare = directory / "spare"
        self._manifest = directory / "manifest"
        self._preparing = threading.Lock()

    def path(self, segment: Segment) -> Path:
        """Where a segment's bytes are."""
        return self.directory / f"{segment.number:08d}.log"

    def open(self, segment: Segment) -> DiskFile:
        """Raises CorruptError (``log_damaged``) if the file is missing."""
        try:
            return self.disk.open(self.path(segment))
        except FileNotFoundError:
            raise damaged(f"segment {segment.number} is missing") from None

    def create(self, segment: Segment) -> DiskFile:
        """An empty segment, from the spare if there is one; its name is durable."""
        path = self.path(segment)
        if self._spare.exists():
            self.disk.rename(self._spare, path)
        file = self.disk.open(path, create=True)
        self.disk.sync_dir(self.directory)
        return file

    def prepare_spare(self) -> None:
        """Write a segment's worth of zeros, so that later syncs change no file metadata.

        Two at once would write to one file, of which the quicker makes a segment.
        """
        with self._preparing:
            if not self._spare.exists():
                self._prepare_spare()

    def _prepare_spare(self) -> None:
        draft = self.directory / "spare.draft"
        file = self.disk.open(draft, create=True)
        try:
            zeros = bytes(1 << 20)
            for offset in range(0, self._segment_bytes, len(zeros)):
                file.pwrite(zeros[: self._segment_bytes - offset], offset)
            file.sync()
        finally:
            file.close()
        self.disk.rename(draft, self._spare)

    def retire(self, segment: Segment) -> None:
        """Keep the file as the spare, or remove it. Only after a manifest without it."""
        path = self.path(segment)
        if not self._spare.exists() and path.stat().st_size == self._segment_bytes:
            self.disk.rename(path, self._spare)
        else:
            self.disk.unlink(path)

    def keep_aside(self, segment: Segment) -> None:
        """Rename the file so that nothing here touches it again."""
        path = self.path(segment)
        self.disk.rename(path, path.with_suffix(".damaged"))

    def read_manifest(self) -> Manifest | None:
        """None for a directory that never held a log."""
        try:
            file = self.disk.open(self._manifest)
        except FileNotFoundError:
            # The first manifest is durable before the first segment is written to.
            if any(each.stat().st_size for each in self.directory.glob("*.log")):
                raise damaged("its manifest is missing") from None
            return None
        try:
            text = file.pread(file.size(), 0)
        finally:
            file.close()
        head, _, body = text.partition(b"\n")
        if head != b"%08x" % zlib.crc32(body):
            raise damaged("its manifest does not match its checksum")
        content = json.loads(body)
        if content["format"] != _FORMAT:
            raise damaged(f"its format {content['format']} is not known to this version")
        return Manifest(content["log_id"], tuple(Segment(**each) for each in content["segments"]))

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; durable when this returns."""
        segments = [msgspec.structs.asdict(segment) for segment in manifest.segments]
        content = {"format": _FORMAT, "log_id": manifest.log_id, "segments": segments}
        body = json.dumps(content).encode()
        draft = self.directory / "manifest.draft"
        self.disk.unlink(draft)
        file = self.disk.open(draft, create=True)
        try:
            file.pwrite(b"%08x\n" % zlib.crc32(body) + body, 0)
            file.sync()
        finally:
            file.close()
        self.disk.rename(draft, self._manifest)
        self.disk.sync_dir(self.directory)
