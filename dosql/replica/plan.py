"""Which files restore a moment: their names, levels, and the choice between them.

Names and choice are Litestream's, so that its restore and ours read the same files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

import msgspec

from dosql.errors import CorruptError, NotFoundError

RAW_LEVEL = 0
"""One file per batch, as it was shipped."""
SNAPSHOT_LEVEL = 9
"""Whole databases."""
LEVEL_SPAN_MS = {1: 30_000, 2: 300_000, 3: 3_600_000}
"""Levels of merged files to the time that one of their files spans; 4 to 8 are legal, unused."""

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx", re.ASCII)
_LEVEL = re.compile(r"[0-9a-f]{4}", re.ASCII)


def file_name(min_txid: int, max_txid: int) -> str:
    """For example ``0000000000000001-000000000000000a.ltx``."""
    return f"{min_txid:016x}-{max_txid:016x}.ltx"


def parse_name(name: str) -> tuple[int, int] | None:
    """First and last TXID of a file by its name; None if it is not one of these files."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    low, high = int(match[1], 16), int(match[2], 16)
    return (low, high) if 1 <= low <= high else None


def level_prefix(prefix: str, level: int) -> str:
    """What the keys of one level start with. Raises ValueError if ``prefix`` is empty."""
    if not prefix or prefix.endswith("/"):
        raise ValueError("the prefix of a replica is neither empty nor does it end with a slash")
    return f"{prefix}/{level:04x}/"


def key(prefix: str, level: int, min_txid: int, max_txid: int) -> str:
    """Where Litestream looks for the file in a bucket."""
    return level_prefix(prefix, level) + file_name(min_txid, max_txid)


def parse_key(prefix: str, text: str) -> tuple[int, int, int] | None:
    """Level, first and last TXID; None if the key is no file of this replica."""
    level, _, name = text.removeprefix(f"{prefix}/").partition("/")
    span = parse_name(name)
    if span is None or not _LEVEL.fullmatch(level) or text != f"{prefix}/{level}/{name}":
        return None
    number = int(level, 16)
    return (number, *span) if number <= SNAPSHOT_LEVEL else None


class FileInfo(msgspec.Struct, frozen=True):
    """One stored file, as a listing knows it."""

    level: int
    min_txid: int
    max_txid: int
    size: int
    """Bytes."""
    timestamp_ms: int | None = None
    """Of its last transaction; None: not looked up, which suits restores to a TXID."""

    @property
    def name(self) -> str:
        return file_name(self.min_txid, self.max_txid)

    def key(self, prefix: str) -> str:
        """Its key in a bucket."""
        return key(prefix, self.level, self.min_txid, self.max_txid)


class _Target(msgspec.Struct, frozen=True):
    """The newest state wanted."""

    txid: int | None
    before_ms: int | None

    def admits(self, file: FileInfo) -> bool:
        if self.txid is not None:
            return file.max_txid <= self.txid
        if self.before_ms is None:
            return True
        if file.timestamp_ms is None:
            raise ValueError(f"the time of {file.name} must be looked up first")
        return file.timestamp_ms < self.before_ms


def restore_plan(
    files: Iterable[FileInfo], target_txid: int | None = None, before_ms: int | None = None
) -> list[FileInfo]:
    """The files to apply, in this order, for the newest state that the target admits.

    ``target_txid``: exactly the state after this transaction. ``before_ms``: the newest state
    with a time strictly before it; the newest **at** a moment t is ``before_ms=t + 1``. Where
    only merged files are left, a moment inside such a file becomes the state before it. Neither:
    the latest.

    A file of the plan may start before the one in front of it ends; each ends later.

    Raises:
        NotFoundError: ``restore_point_not_found``: no state is kept, or not this one.
        CorruptError: ``replica_gap``: a file is missing in front of files that are wanted.
        ValueError: both targets, or a time is needed that is None.
    """
    if target_txid is not None and before_ms is not None:
        raise ValueError("a restore has one target: a TXID or a time")
    known = list(files)
    target = _Target(target_txid, before_ms)
    plan = _reach([file for file in known if target.admits(file)])
    reached = plan[-1].max_txid if plan else 0
    if target_txid is None or reached < target_txid:
        _check_gap(known, target, reached)
    if not plan or (target_txid is not None and reached != target_txid):
        raise NotFoundError("The replica does not hold this state.", code="restore_point_not_found")
    return plan


def restore_plans(
    files: Iterable[FileInfo],
    bad: Collection[FileInfo],
    target_txid: int | None = None,
    before_ms: int | None = None,
) -> Iterator[list[FileInfo]]:
    """The best plan for the target, then others for **the same state** that avoid bad files.

    ``bad`` is the caller's and grows while it works: add what turned out to be damaged, then ask
    for the next plan. Without a new bad file the iteration ends.

    Raises: as `restore_plan`; ``replica_gap`` also when the state cannot be had without a bad
    file. An older state is never given instead.
    """
    known = list(files)
    wanted = restore_plan(known, target_txid, before_ms)[-1].max_txid
    avoided: frozenset[FileInfo] | None = None
    while avoided is None or avoided != frozenset(bad):
        avoided = frozenset(bad)
        usable = [file for file in known if file not in avoided and file.max_txid <= wanted]
        plan = _reach(usable)
        if not plan or plan[-1].max_txid != wanted:
            message = f"TXID {wanted} cannot be restored without a damaged file."
            raise CorruptError(message, code="replica_gap")
        yield plan


def _reach(files: list[FileInfo]) -> list[FileInfo]:
    """The plan to the greatest TXID without a gap: from the last snapshot, the longest steps.

    To start from an earlier snapshot, or to take shorter steps, never reaches further.
    """
    plan: list[FileInfo] = []
    reached = 0
    snapshots = [file for file in files if file.level == SNAPSHOT_LEVEL and file.min_txid == 1]
    if snapshots:
        plan.append(max(snapshots, key=lambda file: file.max_txid))
        reached = plan[0].max_txid
    rest = sorted(
        (file for file in files if file.level != SNAPSHOT_LEVEL), key=lambda file: file.min_txid
    )
    at = 0
    best: FileInfo | None = None
    while True:
        while at < len(rest) and rest[at].min_txid <= reached + 1:
            if best is None or _preference(rest[at]) > _preference(best):
                best = rest[at]
            at += 1
        if best is None or best.max_txid <= reached:
            return plan
        plan.append(best)
        reached = best.max_txid


def _preference(file: FileInfo) -> tuple[int, int, int]:
    return file.max_txid, -file.min_txid, file.level


def _check_gap(files: list[FileInfo], target: _Target, reached: int) -> None:
    """Raise if something wanted lies behind a hole.

    No hole: the next transaction is kept, only inside a merged file that ends past the target.
    """
    after = [file for file in files if file.level != SNAPSHOT_LEVEL and file.max_txid > reached]
    beyond = [file.min_txid for file in after if target.admits(file)]
    if beyond and not any(file.min_txid <= reached + 1 for file in after):
        message = f"The replica has a gap: nothing from TXID {reached + 1} to {min(beyond) - 1}."
        raise CorruptError(message, code="replica_gap")
