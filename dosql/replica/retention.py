"""Retention: which files of a replica may go, and their removal. Blocking.

Every state of the last `retention` is kept, at a granularity that depends on its age:

- single commits for `l0_retention`, and longer where nothing has been merged;
- then the ends of spans of 30 s for `L1_RETENTION_DAYS`;
- then those of 5 minutes.

The newest snapshot that is older than the retention is kept with everything behind it: the oldest
moment of the retention is restored from there. The newest file of the raw level and the newest
snapshot stay for ever: the first says who owns the object.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from dosql.errors import DosqlError
from dosql.limits import (
    L0_RETENTION_HOURS,
    L1_RETENTION_DAYS,
    RETENTION_DAYS,
    RETENTION_GRACE_MS,
)
from dosql.replica.chain import MERGED_LEVELS
from dosql.replica.plan import RAW_LEVEL, SNAPSHOT_LEVEL, FileInfo, restore_plan
from dosql.replica.replica import Replica

_HOUR_MS = 60 * 60 * 1000
_DAY_MS = 24 * _HOUR_MS
_MIDDLE_LEVELS = MERGED_LEVELS[:1]
"""Levels whose files go with age where a higher level covers them."""

Needed = int | Collection[int] | None
"""States that others depend on: a collection of TXIDs, each to be kept exactly; or one TXID, from
which on every state is to be kept, which holds back far more; None: none."""


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """For how long states are kept, in milliseconds."""

    history_ms: int = RETENTION_DAYS * _DAY_MS
    """Any."""
    commits_ms: int = L0_RETENTION_HOURS * _HOUR_MS
    """Each single commit."""
    fine_ms: int = L1_RETENTION_DAYS * _DAY_MS
    """The ends of the shortest spans."""


def expired(
    files: Iterable[FileInfo], now_ms: int, settings: RetentionSettings, needed: Needed = None
) -> list[FileInfo]:
    """The files that may go, of all that a replica has; each with the time it was stored.

    In an order in which they can be removed: wherever that stops, what is to be kept is there.
    """
    known = list(files)
    floor = _floor(known, now_ms - settings.history_ms - RETENTION_GRACE_MS)
    newest = {
        level: max((f.max_txid for f in known if f.level == level), default=0)
        for level in (RAW_LEVEL, SNAPSHOT_LEVEL)
    }
    merged = _Coverage(known)
    going: list[FileInfo] = []
    for file in known:
        if file.max_txid == newest.get(file.level):
            continue
        if file.max_txid < floor:
            going.append(file)
        elif file.level == RAW_LEVEL:
            if _stored(file) < now_ms - settings.commits_ms and merged.covers(file):
                going.append(file)
        elif (
            file.level in _MIDDLE_LEVELS
            and _stored(file) < now_ms - settings.fine_ms - RETENTION_GRACE_MS
            and merged.covers(file)
        ):
            going.append(file)
    kept = _needed_files(known, needed)
    # Snapshots last: until then, what is behind them can still be restored from them.
    order = sorted(going, key=lambda f: (f.level == SNAPSHOT_LEVEL, f.level, f.max_txid))
    return [file for file in order if file not in kept]


def _floor(files: list[FileInfo], cutoff_ms: int) -> int:
    """The end of the newest snapshot that is older than the cutoff; 0: there is none."""
    return max(
        (
            file.max_txid
            for file in files
            if file.level == SNAPSHOT_LEVEL and file.min_txid == 1 and _stored(file) <= cutoff_ms
        ),
        default=0,
    )


class _Coverage:
    """Which files have one of a higher level that spans all they do."""

    def __init__(self, files: list[FileInfo]) -> None:
        self._best: dict[int, list[tuple[int, int]]] = {}
        for level in MERGED_LEVELS:
            spans = sorted((f.min_txid, f.max_txid) for f in files if f.level == level)
            reached = 0
            best: list[tuple[int, int]] = []
            for low, high in spans:  # ends grow with the starts: the longest that began so far
                reached = max(reached, high)
                best.append((low, reached))
            self._best[level] = best

    def covers(self, file: FileInfo) -> bool:
        for level, best in self._best.items():
            if level <= file.level:
                continue
            at = bisect_right(best, (file.min_txid, 1 << 64))
            if at and best[at - 1][1] >= file.max_txid:
                return True
        return False


def _needed_files(files: list[FileInfo], needed: Needed) -> set[FileInfo]:
    """What the states need that others depend on."""
    if needed is None:
        return set()
    kept: set[FileInfo] = set()
    exact = [needed] if isinstance(needed, int) else needed
    for txid in exact:
        try:
            kept.update(restore_plan(files, txid))
        except DosqlError:
            # It cannot be had any more, or not yet: let go of nothing that it may be made of.
            kept.update(file for file in files if file.max_txid >= txid)
    if isinstance(needed, int):
        kept.update(file for file in files if file.max_txid >= needed)
    return kept


def _stored(file: FileInfo) -> int:
    assert file.timestamp_ms is not None
    return file.timestamp_ms


def sweep(
    replica: Replica,
    now_ms: int,
    settings: RetentionSettings,
    protected: Callable[[], Needed] = lambda: None,
) -> list[FileInfo]:
    """Remove what has expired; what that was. Five listings, and one request per 1,000 files.

    ``protected`` is asked after the listing: who wants to depend on a state notes that first, and
    then makes sure that the state is there.

    Raises what buckets raise; some of the files are gone then.
    """
    files = replica.dated()
    going = expired(files, now_ms, settings, protected())
    if going:
        replica.bucket.delete([replica.key(file) for file in going])
    return going
