"""HostStatistics: what a host counts."""

from __future__ import annotations

import msgspec


class HostStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and sizes now."""

    awake_objects: int
    wakes: int
    evictions: int
    broken: int
    flushes: int
    batches: int
    log_bytes: int
    turn_waiters: int
    open_transactions: int = 0
    objects_behind: int = 0
    """Objects of which the bucket lacks something."""
    spool_bytes: int = 0
    """Of what waits for the bucket."""
    bucket_stalled_seconds: float = 0.0
    """For how long the bucket has not answered; 0: it does."""
    objects_refusing_writes: int = 0
    """Their replies wait for the bucket, which has not answered for too long."""
    files_shipped: int = 0
    bytes_shipped: int = 0
    compactions: int = 0
    """Merged files written to the bucket, but for snapshots."""
    snapshots: int = 0
    files_deleted: int = 0
    """By retention."""
    compaction_failures: int = 0
