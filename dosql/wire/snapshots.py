"""Snapshots, and the health of what is in the bucket."""

from __future__ import annotations

from dosql.wire.body import Body


class SnapshotInfo(Body, omit_defaults=False):
    """One whole database in the bucket. Times are RFC 3339 in UTC."""

    bookmark: str
    txid: int
    size_bytes: int
    """Of the file in the bucket, which is compressed."""
    created_at: str
    """When its newest commit was made."""


class SnapshotList(Body, omit_defaults=False):
    """Snapshots of one tenant, the oldest first."""

    snapshots: list[SnapshotInfo]


class VerifyRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/snapshots/verify``. ``everything``: all files, not only
    those that the newest state is restored from. ``repair``: make damaged ones anew."""

    everything: bool = False
    repair: bool = False


class DamagedFile(Body, omit_defaults=False):
    """A file in the bucket that is not what was written."""

    level: int
    """0: a single commit; 1 to 3: a span of time; 9: a snapshot."""
    name: str
    reason: str
    repaired: bool
    """It was made anew out of others, and is sound now."""


class VerifyReply(Body, omit_defaults=False):
    """What a verification found. Times are RFC 3339 in UTC."""

    sound: bool
    """The newest state can be restored, SQLite finds no fault in it, and nothing is damaged that
    was not repaired."""
    failure: str | None
    """Why the newest state cannot be restored; null: it can."""
    bookmark: str | None
    """Of the newest state that can be restored; null if none can."""
    at: str | None
    """When it was committed."""
    size_bytes: int
    """Of the restored database."""
    files: int
    """Read to their ends."""
    bytes_read: int
    """In those files."""
    damaged: list[DamagedFile]


class PruneRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/snapshots/prune``. ``dry_run``: only tell."""

    dry_run: bool = False


class PruneReply(Body, omit_defaults=False):
    """What retention removed, or would remove."""

    files: int
    snapshots: int
    """Of the files."""
    size_bytes: int
    dry_run: bool
