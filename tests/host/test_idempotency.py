"""Idempotency keys: applied once, answered the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dosql.errors import (
    ConflictError,
    ConstraintError,
)
from dosql.host.host import Host
from tests.support.hosts import (
    call,
    crashed,
    execute,
    running_host,
    settings,
    tenant_with_items,
)


async def test_a_write_with_a_key_is_applied_once_and_answered_the_same(tmp_path: Path) -> None:
    insert = "INSERT INTO items(value) VALUES ('a')"
    host = await Host.start(settings(tmp_path))
    tenant = await tenant_with_items(host)
    first = await call(tenant, insert, key="k1")
    again = await call(tenant, insert, key="k1")
    assert (first.replayed, again.replayed) == (False, True)
    assert first.body == again.body
    await crashed(host)
    async with running_host(tmp_path) as host:
        tenant = host.tenants.get("acme")
        assert (await call(tenant, insert, key="k1")).replayed
        assert await execute(tenant, "SELECT count(*) FROM items") == [[1]]


async def test_concurrent_calls_with_one_key_apply_it_once(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        insert = "INSERT INTO items(value) VALUES ('a')"
        outcomes = await asyncio.gather(*(call(tenant, insert, key="k") for _ in range(20)))
        assert [each.replayed for each in outcomes].count(False) == 1
        assert await execute(tenant, "SELECT count(*) FROM items") == [[1]]


async def test_a_key_used_for_another_request_is_a_conflict(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await call(tenant, "INSERT INTO items(value) VALUES ('a')", key="k")
        with pytest.raises(ConflictError) as refusal:
            await call(tenant, "INSERT INTO items(value) VALUES ('b')", key="k")
        assert refusal.value.code == "idempotency_key_reused"


async def test_a_failed_write_stores_no_outcome(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('a')")
        with pytest.raises(ConstraintError):
            await call(tenant, "INSERT INTO items(value) VALUES ('a')", key="k")
        await execute(tenant, "DELETE FROM items")
        assert not (await call(tenant, "INSERT INTO items(value) VALUES ('a')", key="k")).replayed
