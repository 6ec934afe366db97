"""Going back to an earlier state."""

from __future__ import annotations

from dosql.wire.body import Body


class RestoreRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/restore``. ``at``: RFC 3339, or a bookmark. ``to``: a
    tenant to make; none: the tenant itself goes back. ``dry_run``: build the state and check it,
    and change nothing."""

    at: str
    to: str | None = None
    dry_run: bool = False


class RestoreReply(Body, omit_defaults=False):
    """What was restored. Times are RFC 3339 in UTC."""

    tenant: str
    """Which now holds the state."""
    bookmark: str
    """Of the state, in the tenant that it was taken from. It may be older than what was asked
    for: the newest that is kept and is not younger."""
    undo_bookmark: str | None
    """Restoring this one takes the restore back; null unless it was made in place."""
    at: str
    """When the state was committed."""
    size_bytes: int
    """Of the restored database."""
    files: int
    """Read from the bucket."""
    bytes_read: int
    """In those files."""
    dry_run: bool
    """Nothing was changed."""


class BytesProgress(Body, omit_defaults=False):
    """How far a restore is."""

    bytes_read: int
    """From the bucket; it never goes back, and ends at the total."""
    bytes_total: int


class RestoreLine(Body):
    """A line of a restore's reply as a stream. Some have ``progress``; the last has the ``result``,
    or is an error: its body as everywhere, with the status of a reply that is one."""

    progress: BytesProgress | None = None
    result: RestoreReply | None = None
    status: int | None = None
    error: str | None = None
    code: str | None = None
    request_id: str | None = None
