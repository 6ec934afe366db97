"""Snapshots made by hand, over a real host and a bucket in a directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dosql.bookmarks import Bookmark
from dosql.clock import SystemClock
from dosql.errors import ConflictError, NotFoundError
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.plan import RAW_LEVEL
from dosql.sqlite.database import Database
from tests.replica.litestream import litestream
from tests.support.hosts import call, execute, running_host, tenant_with_items


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    settings = ColdTierSettings(LocalBucket(tmp_path / "bucket"), directory=True)
    async with running_host(tmp_path / "data", cold=settings) as running:
        yield running


async def filled(host: Host, count: int = 5) -> Bookmark:
    tenant = await tenant_with_items(host)
    for number in range(count):
        await call(tenant, "INSERT INTO items(value) VALUES (?)", f"v{number}")
    return (await call(tenant, "SELECT 1")).bookmark


async def test_a_snapshot_is_of_the_newest_commit(host: Host) -> None:
    mark = await filled(host)
    info = await host.past.snapshots.create("acme")
    assert (info.bookmark, info.txid) == (str(mark), mark.txid)
    assert info.size_bytes > 0
    assert await host.past.snapshots.list("acme") == [info]


async def test_snapshots_are_listed_the_oldest_first(host: Host) -> None:
    await filled(host)
    first = await host.past.snapshots.create("acme")
    await execute(host.tenants.get("acme"), "DELETE FROM items")
    second = await host.past.snapshots.create("acme")
    assert await host.past.snapshots.list("acme") == [first, second]


async def test_a_snapshot_alone_is_enough_for_litestream(host: Host, tmp_path: Path) -> None:
    """The files of the single commits go; the snapshot is what is left."""
    await filled(host)
    info = await host.past.snapshots.create("acme")
    assert host.cold is not None
    replica = host.cold.shipper.replica(host.tenants.entry("acme").key)
    raw = [replica.key(each) for each in replica.files() if each.level == RAW_LEVEL]
    replica.bucket.delete(raw)
    url = host.cold.replica_url(host.tenants.entry("acme").key)
    target = tmp_path / "restored.db"
    litestream("restore", "-txid", f"{info.txid:016x}", "-o", str(target), url)
    db = Database(str(target), clock=SystemClock())
    assert db.query("SELECT count(*) FROM items").rows == [(5,)]
    db.close()


async def test_a_snapshot_that_nothing_needs_can_be_removed(host: Host) -> None:
    mark = await filled(host)
    await host.past.snapshots.create("acme")
    await host.past.snapshots.delete("acme", mark)
    assert await host.past.snapshots.list("acme") == []
    with pytest.raises(NotFoundError) as caught:
        await host.past.snapshots.delete("acme", mark)
    assert caught.value.code == "snapshot_not_found"


async def test_a_snapshot_without_which_its_state_were_lost_is_kept(host: Host) -> None:
    mark = await filled(host)
    await host.past.snapshots.create("acme")
    assert host.cold is not None
    replica = host.cold.shipper.replica(host.tenants.entry("acme").key)
    first = [each for each in replica.files() if each.level == RAW_LEVEL and each.min_txid == 1]
    replica.bucket.delete([replica.key(each) for each in first])
    with pytest.raises(ConflictError) as caught:
        await host.past.snapshots.delete("acme", mark)
    assert caught.value.code == "snapshot_needed"
    assert len(await host.past.snapshots.list("acme")) == 1


async def test_there_is_no_snapshot_of_nothing(host: Host) -> None:
    await host.tenants.create("acme")
    with pytest.raises(ConflictError) as caught:
        await host.past.snapshots.create("acme")
    assert caught.value.code == "tenant_empty"
    with pytest.raises(NotFoundError):
        await host.past.snapshots.create("nobody")


async def test_a_snapshot_keeps_the_time_of_its_commit(host: Host) -> None:
    """Else a restore to a time between the two would not find the commit."""
    mark = await filled(host)
    tenant = host.tenants.get("acme")
    found = await host.past.travel.find(tenant.key, mark)
    await host.past.snapshots.create("acme")
    assert await host.past.travel.find(tenant.key, found.timestamp_ms) != found
    assert (await host.past.travel.find(tenant.key, found.timestamp_ms)).txid == mark.txid
