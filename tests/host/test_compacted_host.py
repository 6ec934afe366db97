"""A host whose bucket is compacted and swept while it runs, against the real Litestream."""

from __future__ import annotations

from pathlib import Path

import apsw

from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host, HostSettings
from dosql.host.tenant import Tenant
from dosql.replica.local_bucket import LocalBucket
from dosql.testing.clock import ManualClock
from tests.replica.litestream import litestream
from tests.support.hosts import execute, tenant_with_items

HOUR_S = 3_600


async def started(tmp: Path, clock: ManualClock) -> Host:
    cold = ColdTierSettings(LocalBucket(tmp / "bucket"), directory=True)
    return await Host.start(HostSettings(tmp / "data", cold=cold), clock=clock, timers=clock)


async def write(host: Host, tenant: Tenant, clock: ManualClock, start: int, count: int) -> None:
    """One commit per second, each of them shipped."""
    assert host.cold is not None
    for number in range(start, start + count):
        await execute(tenant, "INSERT INTO items(value) VALUES (?)", f"value {number}")
        await host.cold.drain()
        clock.advance(1)


async def let_pass(host: Host, clock: ManualClock, seconds: float) -> None:
    """With the work on threads that falls due meanwhile."""
    assert host.cold is not None
    for _ in range(8):
        clock.advance(seconds / 8)
        await clock.settle()
        await host.cold.compaction.settled()


def count_in(tmp: Path, url: str) -> int:
    out = tmp / "theirs.db"
    out.unlink(missing_ok=True)
    litestream("restore", "-integrity-check", "full", "-o", str(out), url)
    db = apsw.Connection(str(out))
    try:
        return int(db.execute("SELECT count(*) FROM items").get)
    finally:
        db.close()


async def test_a_host_compacts_what_it_ships_and_goes_quiet(tmp_path: Path) -> None:
    clock = ManualClock()
    host = await started(tmp_path, clock)
    try:
        tenant = await tenant_with_items(host)
        assert host.cold is not None
        replica = host.cold.shipper.replica(host.tenants.entry("acme").key)
        url = f"file://{tmp_path / 'bucket' / replica.layout.prefix}"
        await write(host, tenant, clock, 0, 100)
        assert count_in(tmp_path, url) == 100
        await let_pass(host, clock, 2 * HOUR_S)
        assert {file.level for file in replica.files()} == {0, 1, 2}
        statistics = host.statistics()
        assert statistics.compactions >= 5 and statistics.compaction_failures == 0
        assert count_in(tmp_path, url) == 100
        await let_pass(host, clock, 72 * HOUR_S)
        assert len(replica.listing(0)) <= 3, "merged commits are gone"
        assert host.statistics().files_deleted >= 98
        assert count_in(tmp_path, url) == 100
        assert host.cold is not None
        before = host.cold.settings.bucket.usage
        await let_pass(host, clock, 90 * 24 * HOUR_S)
        assert (host.cold.settings.bucket.usage - before).requests == 0
    finally:
        await host.close()


async def test_a_restarted_host_goes_on_compacting(tmp_path: Path) -> None:
    """It looks at what is there when enough was written to be worth it."""
    clock = ManualClock()
    host = await started(tmp_path, clock)
    tenant = await tenant_with_items(host)
    await write(host, tenant, clock, 0, 40)
    await host.close()
    host = await started(tmp_path, clock)
    try:
        assert host.cold is not None
        tenant = host.tenants.get("acme")
        await write(host, tenant, clock, 40, 40)
        await let_pass(host, clock, 2 * HOUR_S)
        replica = host.cold.shipper.replica(host.tenants.entry("acme").key)
        merged = max(replica.listing(2), key=lambda file: file.max_txid)
        assert merged.min_txid <= 3 and merged.max_txid >= 80
        url = f"file://{tmp_path / 'bucket' / replica.layout.prefix}"
        assert count_in(tmp_path, url) == 80
    finally:
        await host.close()


async def test_nothing_is_left_of_a_deleted_tenant(tmp_path: Path) -> None:
    clock = ManualClock()
    host = await started(tmp_path, clock)
    try:
        tenant = await tenant_with_items(host)
        assert host.cold is not None
        replica = host.cold.shipper.replica(host.tenants.entry("acme").key)
        await write(host, tenant, clock, 0, 20)
        await host.tenants.delete("acme")
        await let_pass(host, clock, 2 * HOUR_S)
        await host.cold.drain()
        assert replica.files() == []
    finally:
        await host.close()
