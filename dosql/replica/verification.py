"""Verify: whether the bucket restores what it says, and damage made good. Blocking."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

from dosql.errors import CorruptError, DosqlError, NotFoundError
from dosql.limits import COMPACTION_MEMORY_BYTES
from dosql.replica.codec import corrupt
from dosql.replica.compaction import merge
from dosql.replica.compactor import put_merged
from dosql.replica.history import check_database
from dosql.replica.ltx import Decoder
from dosql.replica.merge_inputs import open_inputs
from dosql.replica.plan import RAW_LEVEL, FileInfo, restore_plan
from dosql.replica.replica import Replica


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not what was written."""

    file: FileInfo
    reason: str
    repaired: bool = False
    """It was made anew out of others, and is sound now."""


@dataclass(slots=True)
class Report:
    """What a verification found."""

    files: int = 0
    """Read to their ends."""
    bytes: int = 0
    txid: int = 0
    """Newest state; 0: none could be restored."""
    timestamp_ms: int = 0
    database_bytes: int = 0
    damaged: list[Damage] = field(default_factory=list[Damage])
    failure: str | None = None
    """Why the newest state cannot be restored; None: it can, and SQLite finds no fault in it."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged that was not repaired."""
        return self.failure is None and all(each.repaired for each in self.damaged)


def verify(
    replica: Replica,
    scratch: Path,
    *,
    everything: bool = False,
    repair: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, all: None,
) -> Report:
    """Read the files that restore the newest state, or all; restore it, and check it with SQLite.

    ``repair``: replace damaged files as far as others hold the same. ``on_progress`` gets bytes.

    Raises:
        NotFoundError: ``restore_point_not_found``: there is no replica.
        What buckets raise.
    """
    known = replica.files()
    report = Report()
    try:
        plan = restore_plan(known)
    except CorruptError as error:
        plan, report.failure = [], error.message
    wanted = known if everything or not plan else plan
    total, done = sum(each.size for each in wanted), 0
    for file in wanted:
        reason = fault_of(replica, file)
        if reason is not None:
            report.damaged.append(Damage(file, reason))
        report.files += 1
        done += file.size
        on_progress(done, total)
    report.bytes = done
    if repair:
        _repair(replica, scratch, known, report)
    if report.failure is None:
        _restore(replica, scratch, known, report)
    return report


def fault_of(replica: Replica, file: FileInfo) -> str | None:
    """What is wrong with a file, read to its end; None: nothing."""
    try:
        with replica.stream(file) as stream:
            decoder = Decoder(stream.read)
            if (decoder.header.min_txid, decoder.header.max_txid) != (file.min_txid, file.max_txid):
                raise corrupt("its name and its header differ")
            for _ in decoder:
                pass
    except CorruptError as error:
        return error.message
    return None


def _restore(replica: Replica, scratch: Path, known: list[FileInfo], report: Report) -> None:
    bad = {each.file for each in report.damaged if not each.repaired}
    with _temporary(scratch) as path:
        try:
            with path.open("w+b") as out:
                image = replica.write_image(out, files=[f for f in known if f not in bad])
            check_database(path)
        except (CorruptError, NotFoundError) as error:
            report.failure = error.message
            return
        newest = max(file.max_txid for file in known)
        if image.txid != newest:
            report.failure = f"TXID {newest} cannot be restored, only {image.txid}."
        report.txid, report.timestamp_ms = image.txid, image.timestamp_ms
        report.database_bytes = image.size_bytes


@contextmanager
def _temporary(scratch: Path) -> Iterator[Path]:
    """A file of its own that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        yield Path(directory) / "verify.sqlite"


# --- repair ----------------------------------------------------------------------------------


def _repair(replica: Replica, scratch: Path, known: list[FileInfo], report: Report) -> None:
    bad = {each.file for each in report.damaged}
    for at, damage in enumerate(report.damaged):
        sources = sources_of(damage.file, [file for file in known if file not in bad])
        if sources is None:
            continue
        try:
            _make_anew(replica, scratch, damage.file, sources)
        except CorruptError:
            continue
        if fault_of(replica, damage.file) is None:
            report.damaged[at] = replace(damage, repaired=True)
            bad.discard(damage.file)


def sources_of(file: FileInfo, sound: list[FileInfo]) -> list[FileInfo] | None:
    """Sound files that together bring exactly what the file did; None: there are none.

    A raw file says who wrote it, which nothing else does: it is never made anew. Where it was
    merged, a restore does not need it.
    """
    if file.level == RAW_LEVEL:
        return None
    if file.min_txid == 1:
        try:
            return restore_plan(sound, file.max_txid)
        except DosqlError:
            return None
    within = [
        each for each in sound if file.min_txid <= each.min_txid and each.max_txid <= file.max_txid
    ]
    chain: list[FileInfo] = []
    reached = file.min_txid - 1
    while reached < file.max_txid:
        step = max(
            (each for each in within if each.min_txid <= reached + 1 and each.max_txid > reached),
            key=lambda each: each.max_txid,
            default=None,
        )
        if step is None:
            return None
        chain.append(step)
        reached = step.max_txid
    return chain


def _make_anew(replica: Replica, scratch: Path, file: FileInfo, sources: list[FileInfo]) -> None:
    with ExitStack() as stack:
        out = cast(
            "BinaryIO",
            stack.enter_context(
                tempfile.SpooledTemporaryFile(COMPACTION_MEMORY_BYTES, dir=str(scratch))
            ),
        )
        inputs = open_inputs(replica, sources, stack, scratch=scratch, stop=lambda: None)
        merged = merge(inputs, out.write)
        out.seek(0)
        put_merged(replica, file.level, merged, out, replace=True)
