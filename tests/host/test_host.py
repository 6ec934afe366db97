"""The host: wakes once, runs one event at a time, answers only what is durable."""

from __future__ import annotations

import asyncio
import errno
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from dosql.errors import (
    BudgetError,
    ConflictError,
    ConstraintError,
    CorruptError,
    DosqlError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaError,
    UnavailableError,
)
from dosql.host.host import Host
from dosql.host.tenants import Idempotency
from dosql.sqlite.database import Database
from dosql.wire import RunMigrations
from tests.support.disks import FailingDisk, HeldDisk
from tests.support.hosts import (
    call,
    execute,
    migration,
    running_host,
    settings,
    tenant_with_items,
    work,
)

SLOW = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
SELECT count(*) FROM n
"""
ENDLESS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n
"""


async def crashed(host: Host) -> None:
    """End the host as a kill does: nothing is checkpointed, nothing is said to the log."""
    await host._maintenance.stop()
    host._commits.close()
    for instance in host._awake.all():
        instance.close()
    host._log.close()
    host._directory.release()


# --- names ------------------------------------------------------------------------------------


async def test_equal_names_have_equal_ids_everywhere(tmp_path: Path) -> None:
    async with running_host(tmp_path / "a") as one, running_host(tmp_path / "b") as two:
        first = await one.tenants.create("acme")
        second = await two.tenants.create("acme")
        assert first.id == second.id
        assert len(first.id) == 64
        assert (await one.tenants.create("globex")).id != first.id


async def test_an_unknown_tenant_is_not_found_and_touches_no_disk(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(NotFoundError) as refusal:
            host.tenants.get("nobody")
        assert refusal.value.code == "tenant_not_found"
        assert sorted(tmp_path.rglob("*")) == before


async def test_a_tenant_is_created_once_however_many_ask(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenants = await asyncio.gather(*(host.tenants.ensure("acme") for _ in range(50)))
        assert len({tenant.key for tenant in tenants}) == 1
        with pytest.raises(ConflictError) as refusal:
            await host.tenants.create("acme")
        assert refusal.value.code == "tenant_exists"


@pytest.mark.parametrize(
    "name", ["", "A", "a" * 64, "../x", "a/b", "a.b", "-a", "é", "admin", "v1", "a\n"]
)
async def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    async with running_host(tmp_path) as host:
        with pytest.raises(InvalidRequestError) as refusal:
            await host.tenants.ensure(name)
        assert refusal.value.code == "invalid_tenant_name"


async def test_tenants_are_listed_in_pages_by_prefix(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        for number in range(25):
            await host.tenants.create(f"team-{number:02d}")
        await host.tenants.create("zeta")
        names: list[str] = []
        cursor = None
        while True:
            page = host.tenants.list("team-", 10, cursor)
            names += [tenant.name for tenant in page.tenants]
            cursor = page.cursor
            if cursor is None:
                break
        assert names == [f"team-{number:02d}" for number in range(25)]


async def test_a_second_host_may_not_have_the_same_directory(tmp_path: Path) -> None:
    async with running_host(tmp_path):
        with pytest.raises(ConflictError) as refusal:
            await Host.start(settings(tmp_path))
        assert refusal.value.code == "data_dir_locked"


# --- events -----------------------------------------------------------------------------------


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


# --- sleeping ---------------------------------------------------------------------------------


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
        async with asyncio.timeout(10):
            while host.statistics().awake_objects:
                await asyncio.sleep(0.02)
        info = host.tenants.info("acme")
        assert info.state == "hibernated"
        assert info.size_bytes > 0
        assert info.txid > 0
        assert await execute(tenant, "SELECT value FROM items") == [["kept"]]
        assert host.tenants.info("acme").state == "awake"


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


# --- durability -------------------------------------------------------------------------------


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
    shutil.copytree(tmp_path, snapshot)
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
    async with asyncio.timeout(10):
        while host.statistics().log_bytes > 256 * 1024:
            await asyncio.sleep(0.01)
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


# --- idempotency ------------------------------------------------------------------------------


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


# --- interactive transactions -----------------------------------------------------------------


async def test_a_transaction_reads_what_it_wrote_and_others_wait(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        transaction = await tenant.begin()
        await transaction.call(work("INSERT INTO items(value) VALUES ('a')"))
        assert await transaction.call(work("SELECT count(*) FROM items")) == b"[[1]]"
        other = asyncio.create_task(execute(tenant, "SELECT count(*) FROM items"))
        await asyncio.sleep(0.05)
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
        with pytest.raises(DosqlError):
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


# --- deletion, export, import -----------------------------------------------------------------


async def test_a_deleted_tenant_is_gone_and_its_name_starts_afresh(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path))
    tenant = await tenant_with_items(host)
    await execute(tenant, "INSERT INTO items(value) VALUES ('old')")
    token = await host.tokens.create("acme", "read-write", None)
    assert host.tokens.check(token.token) is not None
    await host.tenants.delete("acme")
    assert host.tokens.check(token.token) is None
    assert not list(tmp_path.glob(f"objects/*/{tenant.key.filename}*"))
    with pytest.raises(NotFoundError):
        await execute(tenant, "SELECT 1")
    again = await tenant_with_items(host)
    assert await execute(again, "SELECT count(*) FROM items") == [[0]]
    await execute(again, "INSERT INTO items(value) VALUES ('new')")
    await crashed(host)
    async with running_host(tmp_path) as host:
        assert await execute(host.tenants.get("acme"), "SELECT value FROM items") == [["new"]]


async def test_an_export_is_a_database_of_its_own_and_can_be_imported(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('a')")
        async with host.tenants.export("acme") as path:
            copy = host.scratch_dir / "copy.sqlite"
            copy.write_bytes(path.read_bytes())
        assert not path.exists()
        connection = sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)
        assert connection.execute("SELECT value FROM items").fetchall() == [("a",)]
        connection.close()
        info = await host.tenants.import_file("globex", copy)
        assert info.txid == 1
        globex = host.tenants.get("globex")
        assert await execute(globex, "SELECT value FROM items") == [["a"]]
        await execute(globex, "INSERT INTO items(value) VALUES ('b')")
        assert await execute(tenant, "SELECT count(*) FROM items") == [[1]]


async def test_an_import_replaces_a_tenant_whole_and_its_history_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "source.sqlite"
    connection = sqlite3.connect(source)
    connection.executescript("CREATE TABLE other(x); INSERT INTO other VALUES (7);")
    connection.close()
    host = await Host.start(settings(tmp_path / "data"))
    tenant = await tenant_with_items(host)
    before = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    await host.tenants.import_file("acme", source)
    tenant = host.tenants.get("acme")
    after = (await call(tenant, "INSERT INTO other VALUES (8)")).bookmark
    assert after.txid > before.txid
    await crashed(host)
    async with running_host(tmp_path / "data") as host:
        rows = await execute(host.tenants.get("acme"), "SELECT x FROM other")
        assert rows == [[7], [8]]


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"x" * 5000])
async def test_a_bad_import_is_refused_and_changes_nothing(tmp_path: Path, content: bytes) -> None:
    async with running_host(tmp_path / "data") as host:
        tenant = await tenant_with_items(host)
        source = host.scratch_dir / "bad.sqlite"
        source.write_bytes(content)
        with pytest.raises(InvalidRequestError) as refusal:
            await host.tenants.import_file("acme", source)
        assert refusal.value.code == "invalid_database"
        assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]
        assert list(host.scratch_dir.iterdir()) == []


# --- migrations -------------------------------------------------------------------------------


async def test_tenants_behind_are_reported_and_brought_up_to_date(tmp_path: Path) -> None:
    one = (migration(1, "CREATE TABLE a(x)"),)
    two = (*one, migration(2, "CREATE TABLE b(x)"))
    async with running_host(tmp_path, migrations=one) as host:
        for name in ("acme", "globex"):
            await execute(await host.tenants.ensure(name), "SELECT * FROM a")
    async with running_host(tmp_path, migrations=two) as host:
        report = host.tenants.migration_report()
        assert [(each.tenant, each.pending) for each in report.tenants] == [
            ("acme", ["002_test"]),
            ("globex", ["002_test"]),
        ]
        dry = await host.tenants.run_migrations(RunMigrations(dry_run=True))
        assert dry.tenants == report.tenants
        done = await host.tenants.run_migrations(RunMigrations())
        assert [each.pending for each in done.tenants] == [[], []]
        assert await execute(host.tenants.get("acme"), "SELECT * FROM b") == []


async def test_a_failing_migration_is_reported_and_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    async with running_host(tmp_path) as host:
        await execute(await host.tenants.ensure("bad"), "CREATE TABLE a(x)")
        await execute(await host.tenants.ensure("good"), "SELECT 1")
    async with running_host(tmp_path, migrations=(migration(1, "CREATE TABLE a(x)"),)) as host:
        report = await host.tenants.run_migrations(RunMigrations())
        states = {each.tenant: each for each in report.tenants}
        assert states["bad"].error is not None
        assert states["bad"].pending == ["001_test"]
        assert states["good"].pending == []
        with pytest.raises(DosqlError) as refusal:
            await execute(host.tenants.get("bad"), "SELECT 1")
        assert refusal.value.code == "migration_failed"


# --- damage -----------------------------------------------------------------------------------


async def test_a_damaged_batch_condemns_its_object_and_no_other(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path))
    acme = await tenant_with_items(host, "acme")
    globex = await tenant_with_items(host, "globex")
    await execute(acme, "INSERT INTO items(value) VALUES ('needle-in-acme')")
    await execute(globex, "INSERT INTO items(value) VALUES ('b')")
    await crashed(host)
    segment = sorted((tmp_path / "log").glob("*.log"))[-1]
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"needle-in-acme", b"needle-in-acmE"))
    async with running_host(tmp_path) as host:
        assert await execute(host.tenants.get("globex"), "SELECT value FROM items") == [["b"]]
        with pytest.raises(CorruptError) as refusal:
            await execute(host.tenants.get("acme"), "SELECT value FROM items")
        assert refusal.value.code == "object_corrupt"
    assert list((tmp_path / "log").glob("*.damaged")), "kept for the operator"


async def test_a_start_without_the_log_is_refused(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        await tenant_with_items(host)
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(CorruptError) as refusal:
        await Host.start(settings(tmp_path))
    assert refusal.value.code == "log_damaged"
