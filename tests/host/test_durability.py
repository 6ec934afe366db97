"""Durability: what was acknowledged survives a crash, a full disk, a failed sync."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path

import pytest

from dosql.errors import (
    CorruptError,
    OutcomeUnknownError,
    QuotaError,
    UnavailableError,
)
from dosql.host.host import Host
from tests.support.disks import FailingDisk, HeldDisk
from tests.support.hosts import crashed, execute, running_host, settings, tenant_with_items, until


async def test_acknowledged_writes_survive_a_crash(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path))
    tenant = await tenant_with_items(host)
    for number in range(100):
        await execute(tenant, "INSERT INTO items(value) VALUES (?)", str(number))
    await crashed(host)
    async with running_host(tmp_path) as host:
        assert await execute(host.tenants.get("acme"), "SELECT count(*) FROM items") == [[100]]


async def test_what_only_sqlites_own_wal_holds_is_given_up(tmp_path: Path) -> None:
    """The log is the truth: a commit that never reached it was never acknowledged."""
    disk = HeldDisk()
    host = await Host.start(settings(tmp_path), disk=disk)
    tenant = await tenant_with_items(host)
    disk.hold()
    first = asyncio.create_task(execute(tenant, "INSERT INTO items(value) VALUES ('in flight')"))
    await asyncio.to_thread(disk.waiting.wait, 10)
    second = asyncio.create_task(execute(tenant, "INSERT INTO items(value) VALUES ('later')"))
    await asyncio.sleep(0)
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    snapshot = tmp_path.parent / "snapshot"
    shutil.copytree(tmp_path, snapshot, ignore=shutil.ignore_patterns("spare*"))
    disk.release()
    await host.close()
    async with running_host(snapshot) as host:
        rows = await execute(host.tenants.get("acme"), "SELECT value FROM items")
        assert ["later"] not in rows


async def test_a_checkpoint_and_a_cut_lose_nothing(tmp_path: Path) -> None:
    """With a log of 256 KB the host checkpoints, syncs and cuts all the time."""
    small = {"log_bytes_max": 256 * 1024, "log_segment_bytes": 32 * 1024}
    host = await Host.start(settings(tmp_path, **small))
    tenants = [await tenant_with_items(host, f"t{number}") for number in range(5)]
    for number in range(300):
        await asyncio.gather(
            *(
                execute(each, "INSERT INTO items(value) VALUES (?)", f"{number}" * 20)
                for each in tenants
            )
        )
    await until(lambda: host.statistics().log_bytes <= 256 * 1024)
    await crashed(host)
    async with running_host(tmp_path, **small) as host:
        for number in range(5):
            tenant = host.tenants.get(f"t{number}")
            assert await execute(tenant, "SELECT count(*) FROM items") == [[300]]
            assert await execute(tenant, "PRAGMA integrity_check") == [["ok"]]


async def test_a_failed_sync_breaks_the_object_and_the_next_call_rebuilds_it(
    tmp_path: Path,
) -> None:
    disk = FailingDisk()
    async with running_host(tmp_path, disk=disk) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('before')")
        disk.fail("sync", times=1)
        with pytest.raises(UnavailableError) as refusal:
            await execute(tenant, "INSERT INTO items(value) VALUES ('lost')")
        assert refusal.value.code == "commit_failed"
        assert refusal.value.retryable
        assert disk.failed == 1, "a failed sync is never repeated"
        assert await execute(tenant, "SELECT value FROM items") == [["before"]]
        await execute(tenant, "INSERT INTO items(value) VALUES ('after')")
        assert host.statistics().broken == 1
    async with running_host(tmp_path) as host:
        rows = await execute(host.tenants.get("acme"), "SELECT value FROM items ORDER BY id")
        assert rows == [["before"], ["after"]]


async def test_a_full_disk_is_said_and_over_when_there_is_room_again(tmp_path: Path) -> None:
    disk = FailingDisk()
    async with running_host(tmp_path, disk=disk) as host:
        tenant = await tenant_with_items(host)
        disk.fail("pwrite", "create", "sync", code=errno.ENOSPC)
        for _ in range(3):
            with pytest.raises((QuotaError, OutcomeUnknownError)):
                await execute(tenant, "INSERT INTO items(value) VALUES ('lost')")
            assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]
        disk.heal()
        await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
        assert await execute(tenant, "SELECT value FROM items") == [["kept"]]
    async with running_host(tmp_path) as host:
        rows = await execute(host.tenants.get("acme"), "SELECT value FROM items")
        assert rows == [["kept"]]


async def test_the_catalog_recovers_from_a_failed_sync_too(tmp_path: Path) -> None:
    disk = FailingDisk()
    async with running_host(tmp_path, disk=disk) as host:
        await host.tenants.create("before")
        disk.fail("sync", times=1)
        with pytest.raises(UnavailableError):
            await host.tenants.create("lost")
        async with asyncio.timeout(10):
            while True:
                try:
                    names = [each.name for each in host.tenants.list("", 10, None).tenants]
                    break
                except UnavailableError:
                    await asyncio.sleep(0.01)
        assert names == ["before"]
        await host.tenants.create("after")


async def test_an_object_whose_wal_is_damaged_fails_alone(tmp_path: Path) -> None:
    disk = HeldDisk()
    async with running_host(tmp_path, disk=disk) as host:
        acme = await tenant_with_items(host, "acme")
        globex = await tenant_with_items(host, "globex")
        disk.hold()
        first = asyncio.create_task(execute(globex, "INSERT INTO items(value) VALUES ('first')"))
        await asyncio.to_thread(disk.waiting.wait, 10)
        insert = "INSERT INTO items(value) VALUES ('x')"
        writes = [asyncio.create_task(execute(each, insert)) for each in (acme, globex)]
        await asyncio.sleep(0)
        wal = next((tmp_path / "objects").glob(f"*/{acme.key.filename}-wal"))
        os.truncate(wal, 32)
        disk.release()
        with pytest.raises(CorruptError):
            await writes[0]
        assert [await first, await writes[1]] == [1, 1]
        assert await execute(acme, "SELECT count(*) FROM items") == [[0]], "rebuilt from the log"
        await execute(acme, insert)
