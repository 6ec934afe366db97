"""Whole databases in the bucket, made by hand."""

from __future__ import annotations

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from dosql.bookmarks import Bookmark
from dosql.host.names import check_tenant_name
from dosql.wire import SnapshotInfo, SnapshotList
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


SNAPSHOT_ROUTES = [create_snapshot, list_snapshots, delete_snapshot]
