"""Whole databases in the bucket: made by hand, verified, removed."""

from __future__ import annotations

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from dosql.bookmarks import Bookmark
from dosql.host.names import check_tenant_name
from dosql.wire.snapshots import (
    PruneReply,
    PruneRequest,
    SnapshotInfo,
    SnapshotList,
    VerifyReply,
    VerifyRequest,
)
from server.components import Components


@post("/tenants/{name:str}/snapshots", tags=["Time travel"])
async def create_snapshot(
    name: FromPath[str], components: NamedDependency[Components]
) -> SnapshotInfo:
    """Put the database as it is now into the bucket, as one file."""
    return await components.host.past.snapshots.create(check_tenant_name(name))


@get("/tenants/{name:str}/snapshots", tags=["Time travel"])
async def list_snapshots(
    name: FromPath[str], components: NamedDependency[Components]
) -> SnapshotList:
    """All snapshots that are kept, the oldest first, those of the compaction too."""
    return SnapshotList(await components.host.past.snapshots.list(check_tenant_name(name)))


@delete("/tenants/{name:str}/snapshots/{bookmark:str}", tags=["Time travel"])
async def delete_snapshot(
    name: FromPath[str], bookmark: FromPath[str], components: NamedDependency[Components]
) -> None:
    """Remove a snapshot. 409 `snapshot_needed` if its state could not be restored without it."""
    point = Bookmark.parse(bookmark)
    await components.host.past.snapshots.delete(check_tenant_name(name), point)


@post("/tenants/{name:str}/snapshots/verify", tags=["Time travel"], status_code=200)
async def verify_snapshots(
    name: FromPath[str], data: JSONBody[VerifyRequest], components: NamedDependency[Components]
) -> VerifyReply:
    """Read what is in the bucket, restore the newest state from it, and have SQLite check it.

    `everything` reads all files, and not only those that this takes. `repair` makes damaged files
    anew, as far as others hold the same. Damage is told in the reply, not by its status.
    """
    return await components.host.past.snapshots.verify(
        check_tenant_name(name), everything=data.everything, repair=data.repair
    )


@post("/tenants/{name:str}/snapshots/prune", tags=["Time travel"], status_code=200)
async def prune_snapshots(
    name: FromPath[str], data: JSONBody[PruneRequest], components: NamedDependency[Components]
) -> PruneReply:
    """Remove now what retention lets go of: expired snapshots and other files."""
    return await components.host.past.snapshots.prune(check_tenant_name(name), dry_run=data.dry_run)


SNAPSHOT_ROUTES = [
    create_snapshot,
    list_snapshots,
    delete_snapshot,
    verify_snapshots,
    prune_snapshots,
]
