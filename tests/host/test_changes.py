"""Changes: what a subscriber is told is durable, is all there was, and is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dosql.errors import NotFoundError, OverloadedError, RateLimitedError, UnavailableError
from dosql.host.changes import ChangePage, ChangeSettings, Subscription
from dosql.host.host import Host
from dosql.host.tenant import Tenant
from dosql.objects.instance import Instance
from tests.support.disks import FailingDisk, HeldDisk
from tests.support.hosts import (
    crashed,
    execute,
    running_host,
    settings,
    tenant_with_items,
    until,
    work,
)

INSERT = "INSERT INTO items(value) VALUES (?)"


@asynccontextmanager
async def following(host: Host, tenant: Tenant, after: int | None = 0) -> AsyncIterator[Any]:
    """A subscription that has read where it begins."""
    subscription = await host.changes.subscribe(tenant, after=after)
    try:
        await subscription.next()
        yield subscription
    finally:
        subscription.close()


async def page(subscription: Subscription) -> ChangePage:
    """The next page, which must come."""
    async with asyncio.timeout(10):
        while True:
            found = await subscription.next()
            if found is not None:
                return found


def values(found: ChangePage) -> list[Any]:
    return [change.new and change.new[1] for change in found.changes]


async def test_a_commit_wakes_its_subscribers(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        other = await tenant_with_items(host, "other")
        async with following(host, tenant) as first, following(host, tenant) as second:
            waiting = [asyncio.create_task(page(each)) for each in (first, second)]
            await execute(other, INSERT, "elsewhere")
            await execute(tenant, INSERT, "here")
            for told in await asyncio.gather(*waiting):
                assert values(told) == ["here"]
                assert told.bookmark.txid == told.changes[0].txid


async def test_nothing_is_told_before_it_is_durable(tmp_path: Path) -> None:
    disk = HeldDisk()
    async with running_host(tmp_path, disk=disk) as host:
        tenant = await tenant_with_items(host)
        async with following(host, tenant) as subscription:
            disk.hold()
            write = asyncio.create_task(execute(tenant, INSERT, "in flight"))
            await asyncio.to_thread(disk.waiting.wait, 10)
            subscription.wake()
            waiting = asyncio.create_task(page(subscription))
            await asyncio.sleep(0.05)
            assert not waiting.done(), "the log has not synced it yet"
            disk.release()
            await write
            assert values(await waiting) == ["in flight"]


async def test_the_test_above_finds_a_reader_that_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: the output gate is open."""

    async def open_gate(self: Instance, txid: int) -> None:
        return None

    monkeypatch.setattr(Instance, "durable", open_gate)
    with pytest.raises(AssertionError, match="not synced it yet"):
        await test_nothing_is_told_before_it_is_durable(tmp_path)


async def test_what_was_given_up_is_never_told(tmp_path: Path) -> None:
    disk = FailingDisk()
    async with running_host(tmp_path, disk=disk) as host:
        tenant = await tenant_with_items(host)
        async with following(host, tenant) as subscription:
            disk.fail("sync", times=1)
            with pytest.raises(UnavailableError):
                await execute(tenant, INSERT, "lost")
            await execute(tenant, INSERT, "kept")
            told = await page(subscription)
            assert [(each.seq, each.new) for each in told.changes] == [(1, [1, "kept"])]


async def test_a_crash_neither_loses_a_change_nor_invents_one(tmp_path: Path) -> None:
    """Ten crashes, each in the middle of many writes; a subscriber goes on where it was."""
    told: list[tuple[int, Any]] = []
    acknowledged: set[str] = set()
    for number in range(10):
        host = await Host.start(settings(tmp_path))
        tenant = await (tenant_with_items(host) if number == 0 else host.tenants.ensure("acme"))
        subscription = await host.changes.subscribe(tenant, after=len(told))

        async def follow(subscription: Subscription = subscription) -> None:
            while True:
                found = await page(subscription)
                assert not found.reset
                told.extend((each.seq, each.new and each.new[1]) for each in found.changes)

        async def write(value: str, tenant: Tenant = tenant) -> None:
            await execute(tenant, INSERT, value)
            acknowledged.add(value)

        following = asyncio.create_task(follow())
        writes = [asyncio.create_task(write(f"{number}.{each}")) for each in range(30)]
        enough = 5 + number * 2 + len(acknowledged)
        await until(lambda enough=enough: len(acknowledged) >= enough)  # type: ignore[misc]
        for task in (following, *writes):
            task.cancel()
        await asyncio.gather(following, *writes, return_exceptions=True)
        await crashed(host)
    async with running_host(tmp_path) as host:
        tenant = host.tenants.get("acme")
        async with following_from(host, tenant, len(told)) as rest:
            told.extend((each.seq, each.new and each.new[1]) for each in rest)
        rows = [value for (value,) in await execute(tenant, "SELECT value FROM items ORDER BY id")]
    assert [seq for seq, _ in told] == list(range(1, len(told) + 1)), "without gaps"
    assert [value for _, value in told] == rows
    assert acknowledged <= set(rows)


@asynccontextmanager
async def following_from(host: Host, tenant: Tenant, after: int) -> AsyncIterator[Any]:
    """All changes behind a number."""
    changes: list[Any] = []
    while True:
        found = await host.changes.page(tenant, after, 1_000)
        assert not found.reset
        changes += found.changes
        after = found.cursor
        if not found.more:
            break
    yield changes


async def test_every_way_to_write_is_captured(tmp_path: Path) -> None:
    async with running_host(tmp_path, inline_ms=1) as host:
        tenant = await tenant_with_items(host)
        async with following(host, tenant) as subscription:
            slow = (
                "INSERT INTO items(value) WITH n(i) AS"
                " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
                " SELECT 'slow' FROM n WHERE i = 30000"
            )
            await execute(tenant, slow)
            await execute(tenant, INSERT, "once", key="k")
            await execute(tenant, INSERT, "once", key="k")
            transaction = await tenant.begin()
            await transaction.call(work(INSERT, ["in transaction"]))
            await transaction.call(work("UPDATE items SET value = 'changed' WHERE id = 3"))
            bookmark = await transaction.commit(b"", None)
            transaction = await tenant.begin()
            await transaction.call(work(INSERT, ["undone"]))
            await transaction.rollback()
            told: list[Any] = []
            while len(told) < 4:
                told += (await page(subscription)).changes
            assert [each.new[1] for each in told] == ["slow", "once", "in transaction", "changed"]
            assert [each.txid for each in told[2:]] == [bookmark.txid] * 2


async def test_the_batch_of_a_change_is_the_one_its_reply_names(tmp_path: Path) -> None:
    """Also when many writes, inline and on threads, share few syncs."""
    async with running_host(tmp_path, inline_ms=1) as host:
        tenant = await tenant_with_items(host)
        async with following(host, tenant):
            slow = (
                "INSERT INTO items(value) WITH n(i) AS"
                " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
                " SELECT ? FROM n WHERE i = 30000"
            )
            calls = {
                str(number): tenant.call(work(slow if number % 5 == 0 else INSERT, [str(number)]))
                for number in range(60)
            }
            done = dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))
            async with following_from(host, tenant, 0) as changes:
                assert len(changes) == 60
                for change in changes:
                    assert change.txid <= done[change.new[1]].bookmark.txid
                    at_least = [each.bookmark.txid for each in done.values()]
                    assert change.txid in at_least


async def test_a_sleeping_object_is_not_woken_by_its_subscribers(tmp_path: Path) -> None:
    async with running_host(tmp_path, idle_seconds=0.05) as host:
        tenant = await tenant_with_items(host)
        host.changes.settings = ChangeSettings(heartbeat_s=0.01)
        async with following(host, tenant) as subscription:
            assert await subscription.next() is None
            await until(lambda: host.statistics().awake_objects == 0)
            wakes = host.statistics().wakes
            for _ in range(20):
                assert await subscription.next() is None, "a heartbeat"
            assert host.statistics().wakes == wakes
            host.changes.settings = ChangeSettings()
            waiting = asyncio.create_task(page(subscription))
            await execute(tenant, INSERT, "woken")
            assert values(await waiting) == ["woken"]


async def test_a_subscriber_draws_page_by_page(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await host.changes.page(tenant, None, 1)
        numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1800) "
        await execute(tenant, "DELETE FROM items")
        await tenant.call(
            lambda db: (db.run(f"{numbers} INSERT INTO items SELECT i, 'v' || i FROM n"), b"")[1]
        )
        subscription = await host.changes.subscribe(tenant, after=0)
        sizes: list[int] = []
        seen: list[int] = []
        while len(seen) < 1800:
            found = await page(subscription)
            sizes.append(len(found.changes))
            seen += [each.seq for each in found.changes]
        subscription.close()
        assert seen == list(range(1, 1801))
        assert max(sizes) <= 500


async def test_who_asks_for_what_is_not_kept_is_told_to_begin_anew(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, INSERT, "before anybody followed")
        for after in (0, 99):
            subscription = await host.changes.subscribe(tenant, after=after)
            first = await page(subscription)
            assert (first.reset, first.changes, first.cursor) == (True, [], 1)
            subscription.close()
        await execute(tenant, INSERT, "after")
        told = await host.changes.page(tenant, 1, 10)
        assert (told.reset, values(told)) == (False, ["after"])


async def test_capture_of_every_tenant_begins_with_its_schema(tmp_path: Path) -> None:
    async with running_host(tmp_path, changes=ChangeSettings(always=True)) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, INSERT, "v")
        told = await host.changes.page(tenant, 0, 10)
        assert [each.op.name for each in told.changes] == ["SCHEMA", "INSERT"]
        assert not told.reset


async def test_nothing_is_stored_of_a_tenant_that_nobody_follows(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, INSERT, "v")
        (names, captured), _ = await tenant.perform(
            lambda db: (
                db.internal_query("SELECT name FROM sqlite_schema WHERE name LIKE '%changes%'"),
                db.capture,
            )
        )
        assert (names, captured) == ([], None)


async def test_a_follower_of_a_deleted_tenant_hears_of_it(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        async with following(host, tenant) as subscription:
            waiting = asyncio.create_task(page(subscription))
            await asyncio.sleep(0)
            await host.tenants.delete("acme")
            with pytest.raises(NotFoundError):
                await waiting


async def test_there_are_not_too_many_subscribers(tmp_path: Path) -> None:
    limits = ChangeSettings(subscribers_max=2, subscribers_node_max=3)
    async with running_host(tmp_path, changes=limits) as host:
        acme = await tenant_with_items(host)
        other = await tenant_with_items(host, "other")
        third = await tenant_with_items(host, "third")
        first = await host.changes.subscribe(acme, after=0)
        await host.changes.subscribe(acme, after=0)
        with pytest.raises(RateLimitedError):
            await host.changes.subscribe(acme, after=0)
        await host.changes.subscribe(other, after=0)
        with pytest.raises(OverloadedError):
            await host.changes.subscribe(third, after=0)
        first.close()
        first.close()
        assert host.changes.count == 2
        await host.changes.subscribe(acme, after=0)


async def test_an_import_is_another_stream(tmp_path: Path) -> None:
    """What it replaces had the same numbers for other changes."""
    async with running_host(tmp_path / "data") as host:
        tenant = await tenant_with_items(host)
        await host.changes.page(tenant, None, 1)
        await execute(tenant, INSERT, "first")
        async with host.tenants.export("acme") as file:
            copy = tmp_path / "copy.sqlite"
            copy.write_bytes(file.read_bytes())
        await execute(tenant, INSERT, "second")
        await host.tenants.import_file("acme", copy)
        tenant = host.tenants.get("acme")
        for after in (1, 2):
            assert (await host.changes.page(tenant, after, 10)).reset
        cursor = (await host.changes.page(tenant, None, 10)).cursor
        await execute(tenant, INSERT, "third")
        told = await host.changes.page(tenant, cursor, 10)
        assert [(each.seq, each.new) for each in told.changes] == [(cursor + 1, [2, "third"])]
