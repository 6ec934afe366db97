"""Rate limits in a host: nobody waits for a disk, no hit is lost, the table stays small."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dosql.clock import SystemClock
from dosql.host import rate_limits as module
from dosql.host.host import Host
from dosql.host.rate_limits import RateLimits
from dosql.objects.rate_rules import Rule
from dosql.objects.rate_table import rate_key
from tests.support.disks import HeldDisk
from tests.support.hosts import (
    crashed,
    execute,
    running_host,
    settings,
    tenant_with_items,
    until,
    work,
)

RULE = Rule("sliding", 5, 3_600_000)
KEY = rate_key("test")


def limits_of(host: Host) -> RateLimits:
    return RateLimits(host.tenants, SystemClock())


async def count(host: Host) -> int:
    tenant = host.tenants.get("acme")
    sql = "SELECT count(*) FROM _dosql_rate_limits"
    found, _ = await tenant.perform(lambda db: db.internal_query(sql)[0][0])
    return int(str(found))


async def test_neither_a_hit_nor_a_read_behind_it_waits_for_the_disk(tmp_path: Path) -> None:
    """A write that somebody waits for does, and takes the hits along."""
    disk = HeldDisk()
    host = await Host.start(settings(tmp_path), disk=disk)
    tenant, limits = await tenant_with_items(host), limits_of(host)
    disk.hold()
    async with asyncio.timeout(10):
        assert (await limits.hit(tenant, RULE, KEY)).remaining == 4
        assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]
        assert (await limits.hit(tenant, RULE, KEY)).remaining == 3
    write = asyncio.create_task(execute(tenant, "INSERT INTO items(value) VALUES ('a')"))
    await asyncio.to_thread(disk.waiting.wait, 10)
    assert not write.done()
    disk.release()
    await write
    await crashed(host)
    async with running_host(tmp_path) as host:
        verdict = await limits_of(host).hit(host.tenants.get("acme"), RULE, KEY)
        assert verdict.remaining == 2


async def test_a_bookmark_leaves_out_what_a_crash_may_undo(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant, limits = await tenant_with_items(host), limits_of(host)
        _, before = await tenant.perform(lambda db: db.query("SELECT 1"))
        await limits.hit(tenant, RULE, KEY)
        _, after = await tenant.perform(lambda db: db.query("SELECT 1"))
        assert after == before
        _, written = await tenant.perform(lambda db: db.run("DELETE FROM items"))
        assert written.txid >= after.txid


async def test_an_orderly_stop_and_a_sleep_keep_every_hit(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        assert (await limits_of(host).hit(tenant, RULE, KEY)).remaining == 4
    async with running_host(tmp_path) as host:
        verdict = await limits_of(host).hit(host.tenants.get("acme"), RULE, KEY)
        assert verdict.remaining == 3


async def test_hits_reach_the_log_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dosql.objects.instance as instance

    monkeypatch.setattr(instance, "UNCONFIRMED_S", 0.01)
    host = await Host.start(settings(tmp_path))
    tenant, limits = await tenant_with_items(host), limits_of(host)
    before = host.statistics().batches
    await limits.hit(tenant, RULE, KEY)
    await until(lambda: host.statistics().batches > before)
    await crashed(host)
    async with running_host(tmp_path) as host:
        verdict = await limits_of(host).hit(host.tenants.get("acme"), RULE, KEY)
        assert verdict.remaining <= 4


async def test_many_hits_share_one_batch_of_the_log(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant, limits = await tenant_with_items(host), limits_of(host)
        before = host.statistics().batches
        for number in range(100):
            await limits.hit(tenant, RULE, rate_key(number))
        await execute(tenant, "INSERT INTO items(value) VALUES ('a')")
        assert host.statistics().batches - before <= 10  # 100, were each on its own


async def test_an_interactive_transaction_begins_behind_a_hit(tmp_path: Path) -> None:
    """It waits for all that it has seen, so the hit goes to the log at once."""
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await limits_of(host).hit(tenant, RULE, KEY)
        transaction = await tenant.begin()
        assert await transaction.call(work("SELECT count(*) FROM items")) == b"[[0]]"
        await transaction.rollback()


async def test_the_table_shrinks_back_when_its_keys_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hits of others, a few rows at a time; and wholly by the sweep, without any hit."""
    async with running_host(tmp_path) as host:
        tenant, limits = await tenant_with_items(host), limits_of(host)
        short = Rule("gcra", 5, 1_000)
        for number in range(600):
            await limits.hit(tenant, short, rate_key(number))
        assert await count(host) == 600
        later = limits.now_ms() + 10 * 60_000
        monkeypatch.setattr(limits, "now_ms", lambda: later)
        for number in range(4 * module.CLEAN_UP_EVERY):
            await limits.hit(tenant, short, rate_key("other", number))
        assert await count(host) == 600 - 4 * module.CLEAN_UP_ROWS + 4 * module.CLEAN_UP_EVERY
        assert await limits.sweep() == 600 - 4 * module.CLEAN_UP_ROWS
        assert await count(host) == 4 * module.CLEAN_UP_EVERY
