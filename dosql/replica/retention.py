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
from itertools import accumulate

import msgspec

from dosql.errors import DosqlError
from dosql.limits import (
    L0_RETENTION_HOURS,
    L1_RETENTION_DAYS,
    RETENTION_DAYS,
    RETENTION_GRACE_MS,
)
from dosql.replica.plan import RAW_LEVEL, SNAPSHOT_LEVEL, FileInfo, restore_plan
from dosql.replica.replica import Replica

_HOUR_MS = 60 * 60 * 1000
_DAY_MS = 24 * _HOUR_MS
Needed = int | Collection[int] | None
"""States that others depend on: a collection of TXIDs, each to be kept exactly; or one TXID, from
which on every state is to be kept, which holds back far more; None: none."""


class RetentionSettings(msgspec.Struct, frozen=True):
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
    merged = {
        1: _Coverage(known, 1, now_ms - settings.commits_ms - RETENTION_GRACE_MS),
        2: _Coverage(known, 2, now_ms - settings.fine_ms - RETENTION_GRACE_MS),
    }
    going = [
        file
        for file in known
        if file.max_txid != newest.get(file.level)
        and (
            file.max_txid < floor
            or any(level > file.level and each.covers(file) for level, each in merged.items())
        )
    ]
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
    """Which files lie within a merged one of a level that is older than some moment.

    It is the age of the merged file, its last input's, that counts: without the first input none
    of the others could be restored by itself.
    """

    def __init__(self, files: list[FileInfo], level: int, before_ms: int) -> None:
        spans = sorted(
            (file.min_txid, file.max_txid)
            for file in files
            if file.level == level and _stored(file) < before_ms
        )
        self._starts = [low for low, _ in spans]
        self._reached = list(accumulate((high for _, high in spans), max))

    def covers(self, file: FileInfo) -> bool:
        """Whether one that begins at or before the file ends at or behind it."""
        at = bisect_right(self._starts, file.min_txid)
        return at > 0 and self._reached[at - 1] >= file.max_txid


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
