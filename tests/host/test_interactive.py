"""Transactions over several calls."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from dosql.errors import (
    ConstraintError,
    DosqlError,
    NotFoundError,
)
from dosql.objects.idempotency import Idempotency
from tests.support.hosts import (
    execute,
    running_host,
    tenant_with_items,
    until,
    work,
)


async def test_a_transaction_reads_what_it_wrote_and_others_wait(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        transaction = await tenant.begin()
        await transaction.call(work("INSERT INTO items(value) VALUES ('a')"))
        assert await transaction.call(work("SELECT count(*) FROM items")) == b"[[1]]"
        other = asyncio.create_task(execute(tenant, "SELECT count(*) FROM items"))
        await until(lambda: host.statistics().turn_waiters == 1)
        assert not other.done()
        await transaction.commit(b"{}", None)
        assert await other == [[1]]


async def test_a_rolled_back_transaction_leaves_nothing(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        transaction = await tenant.begin()
        await transaction.call(work("INSERT INTO items(value) VALUES ('a')"))
        await transaction.rollback()
        await transaction.rollback()
        assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]
        with pytest.raises(NotFoundError) as refusal:
            await transaction.call(work("SELECT 1"))
        assert refusal.value.code == "transaction_not_found"


async def test_a_failed_statement_does_not_end_the_transaction(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        transaction = await tenant.begin()
        await transaction.call(work("INSERT INTO items(value) VALUES ('a')"))
        with pytest.raises(ConstraintError):
            await transaction.call(work("INSERT INTO items(value) VALUES ('a')"))
        await transaction.commit(b"{}", None)
        assert await execute(tenant, "SELECT count(*) FROM items") == [[1]]


async def test_an_idle_transaction_is_rolled_back(tmp_path: Path) -> None:
    async with running_host(tmp_path, transaction_idle_s=0.1) as host:
        tenant = await tenant_with_items(host)
        transaction = await tenant.begin()
        await transaction.call(work("INSERT INTO items(value) VALUES ('a')"))
        assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]
        assert transaction.closed
        with pytest.raises(NotFoundError):
            tenant.transaction(transaction.id)


async def test_a_transaction_ends_at_its_deadline_however_busy(tmp_path: Path) -> None:
    async with running_host(tmp_path, transaction_s=0.3) as host:
        tenant = await tenant_with_items(host)
        transaction = await tenant.begin()
        async with asyncio.timeout(10):
            with contextlib.suppress(DosqlError):
                while True:
                    await transaction.call(work("SELECT 1"))
        assert transaction.closed
        assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]


async def test_a_transaction_that_sqlite_rolled_back_is_over(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('a')")
        transaction = await tenant.begin()
        await transaction.call(work("INSERT INTO items(value) VALUES ('b')"))
        with pytest.raises(DosqlError) as refusal:
            await transaction.call(work("INSERT OR ROLLBACK INTO items(value) VALUES ('a')"))
        assert refusal.value.code == "transaction_aborted"
        assert transaction.closed
        assert await execute(tenant, "SELECT value FROM items") == [["a"]]


async def test_a_committed_transactions_outcome_can_be_asked_for(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        key = Idempotency("k", b"commit")
        assert await tenant.committed(key) is None
        transaction = await tenant.begin()
        await transaction.call(work("INSERT INTO items(value) VALUES ('a')"))
        await transaction.commit(b'{"committed":true}', key)
        done = await tenant.committed(key)
        assert done is not None
        assert done.body == b'{"committed":true}'
