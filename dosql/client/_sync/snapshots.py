# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Snapshots: whole databases in the bucket, and whether it holds what it should."""

from __future__ import annotations

from urllib.parse import quote

from dosql.client._sync.transport import Transport
from dosql.client.calls import LONG_WORK_S, Call, decode, encode, json_headers, tenant_path
from dosql.wire.snapshots import (
    PruneReply,
    PruneRequest,
    SnapshotInfo,
    SnapshotList,
    VerifyReply,
    VerifyRequest,
)

_JSON = json_headers({})


class Snapshots:
    """Of the tenants. Every method raises NotFoundError (``tenant_not_found``), and
    InvalidRequestError (``no_bucket``) if the server has none."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, tenant: str) -> SnapshotInfo:
        """Put the database as it is now into the bucket, as one file.

        Raises:
            ConflictError: ``tenant_empty``: it has no database yet.
        """
        call = Call("POST", _path(tenant), writes=True, timeout_s_min=LONG_WORK_S)
        return decode(self._transport.send(call), SnapshotInfo)

    def list(self, tenant: str) -> list[SnapshotInfo]:
        """All that are kept, the oldest first, those that the server made by itself too."""
        reply = self._transport.send(Call("GET", _path(tenant)))
        return decode(reply, SnapshotList).snapshots

    def delete(self, tenant: str, bookmark: str) -> None:
        """Remove the snapshot of this state.

        Raises:
            NotFoundError: ``snapshot_not_found``.
            ConflictError: ``snapshot_needed``: its state could not be restored without it.
        """
        path = f"{_path(tenant)}/{quote(bookmark, safe='')}"
        self._transport.send(Call("DELETE", path, writes=True, repeatable=False))

    def verify(self, tenant: str, *, everything: bool = False, repair: bool = False) -> VerifyReply:
        """Read what the newest state is restored from, or every file that the bucket has of the
        tenant; restore that state, and have SQLite check it.

        ``repair``: make damaged files anew, as far as others hold the same. Damage is in the
        report, not raised.

        Raises:
            ConflictError: ``tenant_empty``: it has no database yet.
        """
        body = encode(VerifyRequest(everything, repair))
        path = f"{_path(tenant)}/verify"
        call = Call("POST", path, body, _JSON, writes=repair, timeout_s_min=LONG_WORK_S)
        return decode(self._transport.send(call), VerifyReply)

    def prune(self, tenant: str, *, dry_run: bool = False) -> PruneReply:
        """Remove now what the server's retention lets go of; ``dry_run``: only tell."""
        body = encode(PruneRequest(dry_run))
        path = f"{_path(tenant)}/prune"
        call = Call("POST", path, body, _JSON, writes=not dry_run, timeout_s_min=LONG_WORK_S)
        return decode(self._transport.send(call), PruneReply)


def _path(tenant: str) -> str:
    return f"{tenant_path(tenant)}/snapshots"
