"""Sleeping: a cap on awake objects, and nothing lost on the way in or out."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from dosql.objects.instance import Instance
from tests.support.hosts import execute, running_host, tenant_with_items, until


async def test_the_number_of_awake_objects_stays_below_its_cap(tmp_path: Path) -> None:
    async with running_host(tmp_path, open_objects_max=5) as host:
        for number in range(30):
            tenant = await tenant_with_items(host, f"t{number}")
            await execute(tenant, "INSERT INTO items(value) VALUES (?)", f"of {number}")
            assert host.statistics().awake_objects <= 5
        for number in range(30):
            tenant = host.tenants.get(f"t{number}")
            assert await execute(tenant, "SELECT value FROM items") == [[f"of {number}"]]


async def test_many_tenants_called_at_once_share_the_cap(tmp_path: Path) -> None:
    async with running_host(tmp_path, open_objects_max=4) as host:
        tenants = [await tenant_with_items(host, f"t{number}") for number in range(40)]
        await asyncio.gather(
            *(execute(each, "INSERT INTO items(value) VALUES ('x')") for each in tenants * 3),
            return_exceptions=True,
        )
        assert host.statistics().awake_objects <= 5
        for tenant in tenants:
            assert await execute(tenant, "SELECT count(*) FROM items") == [[1]]


async def test_idle_objects_hibernate_and_wake_with_their_data(tmp_path: Path) -> None:
    async with running_host(tmp_path, idle_seconds=0.05) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
        await until(lambda: host.statistics().awake_objects == 0)
        info = host.tenants.info("acme")
        assert info.state == "hibernated"
        assert info.size_bytes > 0
        assert info.txid > 0
        assert await execute(tenant, "SELECT value FROM items") == [["kept"]]
        assert host.tenants.info("acme").state == "awake"


async def test_an_object_that_falls_asleep_has_the_state_that_it_had_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is behind until the checkpoint is over."""
    may_go_on, checkpoint = threading.Event(), Instance.checkpoint

    def late(instance: Instance) -> None:
        may_go_on.wait(timeout=60)
        checkpoint(instance)

    async with running_host(tmp_path, open_objects_max=1) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
        awake = host.tenants.info("acme").txid
        monkeypatch.setattr(Instance, "checkpoint", late)
        try:
            other = asyncio.create_task(tenant_with_items(host, "other"))
            await until(lambda: host.tenants.info("acme").state == "hibernated")
            assert host.tenants.info("acme").txid == awake > 1
        finally:
            may_go_on.set()
        await other
        assert host.tenants.info("acme").txid == awake


async def test_a_clean_stop_leaves_files_that_stock_sqlite_reads(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
        id = host.tenants.info("acme").id
    files = list((tmp_path / "objects").glob(f"*/{id}-*.sqlite"))
    assert len(files) == 1
    connection = sqlite3.connect(files[0])
    assert connection.execute("SELECT value FROM items").fetchall() == [("kept",)]
    connection.close()
    async with running_host(tmp_path) as host:
        assert await execute(host.tenants.get("acme"), "SELECT value FROM items") == [["kept"]]
