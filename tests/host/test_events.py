"""Events: one wake, one at a time, and no answer before it is durable."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from dosql.errors import (
    BudgetError,
)
from dosql.sqlite.database import Database
from tests.support.disks import HeldDisk
from tests.support.hosts import (
    call,
    execute,
    migration,
    running_host,
    tenant_with_items,
)

SLOW = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
SELECT count(*) FROM n
"""
ENDLESS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n
"""


async def test_an_object_is_woken_once_however_many_calls_arrive_together(tmp_path: Path) -> None:
    migrations = (migration(1, "CREATE TABLE once(x)"), migration(2, "INSERT INTO once VALUES (1)"))
    async with running_host(tmp_path, migrations=migrations) as host:
        await host.tenants.create("acme")
        tenant = host.tenants.get("acme")
        wakes = host.statistics().wakes
        counts = await asyncio.gather(
            *(execute(tenant, "SELECT count(*) FROM once") for _ in range(100))
        )
        assert counts == [[[1]]] * 100
        assert host.statistics().wakes == wakes + 1


async def test_a_reply_waits_until_its_write_is_durable(tmp_path: Path) -> None:
    """The output gate: nobody may see a write that a crash could still undo."""
    disk = HeldDisk()
    async with running_host(tmp_path, disk=disk) as host:
        tenant = await tenant_with_items(host)
        disk.hold()
        write = asyncio.create_task(execute(tenant, "INSERT INTO items(value) VALUES ('a')"))
        await asyncio.to_thread(disk.waiting.wait, 10)
        read = asyncio.create_task(execute(tenant, "SELECT count(*) FROM items"))
        done, _ = await asyncio.wait([write, read], timeout=0.2)
        assert not done, "neither the write nor a read that saw it may be answered yet"
        disk.release()
        assert await write == 1
        assert await read == [[1]]


async def test_a_read_that_saw_only_durable_state_does_not_wait(tmp_path: Path) -> None:
    disk = HeldDisk()
    async with running_host(tmp_path, disk=disk) as host:
        quiet = await tenant_with_items(host, "quiet")
        busy = await tenant_with_items(host, "busy")
        disk.hold()
        write = asyncio.create_task(execute(busy, "INSERT INTO items(value) VALUES ('a')"))
        await asyncio.to_thread(disk.waiting.wait, 10)
        assert await execute(quiet, "SELECT count(*) FROM items") == [[0]]
        disk.release()
        await write


async def test_commits_that_arrive_during_a_sync_share_the_next_one(tmp_path: Path) -> None:
    disk = HeldDisk()
    async with running_host(tmp_path, disk=disk) as host:
        tenant = await tenant_with_items(host)
        disk.hold()
        first = asyncio.create_task(execute(tenant, "INSERT INTO items(value) VALUES ('first')"))
        await asyncio.to_thread(disk.waiting.wait, 10)
        flushes = host.statistics().flushes
        rest = [
            asyncio.create_task(execute(tenant, "INSERT INTO items(value) VALUES (?)", str(n)))
            for n in range(200)
        ]
        await asyncio.sleep(0)
        disk.release()
        await asyncio.gather(first, *rest)
        assert host.statistics().flushes - flushes <= 3


async def test_a_bookmark_names_the_state_a_reply_reflects(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        first = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
        read = (await call(tenant, "SELECT 1")).bookmark
        second = (await call(tenant, "INSERT INTO items(value) VALUES ('b')")).bookmark
        assert first == read < second
        assert str(first) < str(second)


async def test_a_slow_statement_moves_to_a_thread_and_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    async with running_host(tmp_path) as host:
        slow = await tenant_with_items(host, "slow")
        quick = await tenant_with_items(host, "quick")
        task = asyncio.create_task(execute(slow, SLOW))
        answers = 0
        while not task.done():
            await execute(quick, "SELECT 1")
            answers += 1
            await asyncio.sleep(0)
        assert await task == [[300000]]
        assert answers > 3


async def test_a_statement_past_its_deadline_is_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    async with running_host(tmp_path, statement_ms=100) as host:
        tenant = await tenant_with_items(host)
        with pytest.raises(BudgetError) as refusal:
            await execute(tenant, ENDLESS)
        assert refusal.value.code == "query_timeout"
        with pytest.raises(BudgetError):
            await execute(tenant, f"INSERT INTO items(value) {ENDLESS}")
        assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]


async def test_slow_writes_run_exactly_once(tmp_path: Path) -> None:
    """The first try on the event loop is rolled back before the second one."""
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        sql = SLOW.replace("SELECT count(*) FROM n", "SELECT 'v' || i FROM n WHERE i % 100 = 0")
        assert await execute(tenant, f"INSERT INTO items(value) {sql}") == 3000
        assert await execute(tenant, "SELECT count(*) FROM items") == [[3000]]


async def test_a_slow_write_is_answered_with_the_bookmark_of_its_own_end(tmp_path: Path) -> None:
    """Others have their turns before the caller of a slow one hears of its end."""
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        rows = SLOW.replace("SELECT count(*) FROM n", "SELECT 'v' || i FROM n WHERE i % 100 = 0")
        slow = asyncio.create_task(call(tenant, f"INSERT INTO items(value) {rows}"))
        quick = [call(tenant, "INSERT INTO items(value) VALUES (?)", f"q{n}") for n in range(3)]
        bookmarks = [done.bookmark for done in await asyncio.gather(slow, *quick)]
        assert bookmarks[0] < min(bookmarks[1:])


async def test_a_cancelled_slow_call_keeps_the_object_to_itself_until_it_ends(
    tmp_path: Path,
) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        started = threading.Event()
        ended = threading.Event()

        def slow(db: Database) -> bytes:
            rows = db.query(SLOW)
            started.set()
            db.query(SLOW)
            ended.set()
            return str(rows).encode()

        task = asyncio.create_task(tenant.call(slow))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]
        assert ended.is_set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_the_log_takes_along_from_a_worker_thread_is_what_its_caller_waits_for(
    tmp_path: Path,
) -> None:
    """Any commit of the object may bring the log to look at it, also while a statement runs."""
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        instance = host.node.awake.peek(host.tenants.entry("acme").key)
        assert instance is not None
        loop, here = asyncio.get_running_loop(), threading.get_ident()

        async def flush() -> None:
            await instance._commits.committed(instance).wait()

        def work(db: Database) -> bytes:
            if threading.get_ident() == here:
                raise BudgetError("It takes too long for the loop.", code="query_timeout")
            db.run("INSERT INTO items(value) VALUES ('kept')")
            asyncio.run_coroutine_threadsafe(flush(), loop).result(timeout=60)
            return b""

        before = instance.durable_txid
        assert (await tenant.call(work)).bookmark.txid == before + 1 == instance.durable_txid
