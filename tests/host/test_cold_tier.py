"""Objects and their copies in the bucket: trust, complete, restore; loss, damage and outages."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from dosql import App, DurableObject
from dosql.errors import CorruptError, DosqlError, OutcomeUnknownError, UnavailableError
from dosql.host.catalog import CATALOG_KEY
from dosql.log.position import position_path
from dosql.replica.bucket import ObjectInfo
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import RAW_LEVEL
from tests.support.buckets import WrappedBucket
from tests.support.cold import (
    CATALOG_PREFIX,
    SwitchedBucket,
    add,
    drained,
    file_of,
    impatient,
    key_of,
    killed,
    replica_of,
    replicated_host,
    restored,
    rows_of,
    shipped_txid,
    start_host,
    values,
)
from tests.support.hosts import call, execute, tenant_with_items, until

__all__ = ["impatient"]


@pytest.fixture
def bucket() -> SwitchedBucket:
    return SwitchedBucket(MemoryBucket())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def stored(data: Path, bucket: SwitchedBucket, *rows: str, durability: Any = "local") -> Any:
    """A tenant with these rows, all of it in the bucket, and the host closed. Its key."""
    async with replicated_host(data, bucket, durability) as host:
        await add(await tenant_with_items(host), *rows)
        return key_of(host)


# --- what is lost on the disk comes from the bucket -------------------------------------------


def _file(data: Path, database: Path) -> None:
    database.unlink()


def _position(data: Path, database: Path) -> None:
    position_path(database).unlink()


def _directory(data: Path, database: Path) -> None:
    shutil.rmtree(data)


def _header(data: Path, database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[3] ^= 1
    database.write_bytes(content)


def _page_type(data: Path, database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[100] ^= 0x40
    database.write_bytes(content)


def _torn_position(data: Path, database: Path) -> None:
    content = bytearray(position_path(database).read_bytes())
    content[16] ^= 1
    content[80] ^= 1
    position_path(database).write_bytes(content)


Loss = Callable[[Path, Path], None]


@pytest.mark.parametrize(
    "lose", [_file, _position, _torn_position, _directory, _header, _page_type]
)
@pytest.mark.parametrize("durability", ["local", "bucket"])
async def test_what_the_disk_lost_or_damaged_is_restored_when_the_object_wakes(
    lose: Loss, durability: Any, data: Path, bucket: SwitchedBucket
) -> None:
    key = await stored(data, bucket, "one", "two", durability=durability)
    lose(data, file_of(data, key))
    async with replicated_host(data, bucket, durability) as host:
        tenant = host.tenants.get("acme")
        assert await values(tenant) == ["one", "two"]
        await add(tenant, "three")
        await drained(host)
    async with replicated_host(data, bucket, durability) as host:
        assert await values(host.tenants.get("acme")) == ["one", "two", "three"]


async def test_the_first_write_after_a_loss_continues_the_numbers_of_the_old_life(
    data: Path, bucket: SwitchedBucket
) -> None:
    """Behind a fence of the new data directory: one batch that writes nothing."""
    key = await stored(data, bucket, "one")
    shutil.rmtree(data)
    async with replicated_host(data, bucket) as host:
        before = shipped_txid(host, key)
        done = await call(host.tenants.get("acme"), "INSERT INTO items(value) VALUES ('two')")
        assert done.bookmark.txid == before + 2
        await drained(host)
        assert [file.max_txid for file in replica_of(host, key).listing(RAW_LEVEL)] == list(
            range(1, before + 3)
        )


# --- crashes between commit and shipping ------------------------------------------------------


async def test_a_killed_host_ships_what_only_its_log_had_one_file_per_batch(
    data: Path, bucket: SwitchedBucket, impatient: None
) -> None:
    host = await start_host(data, bucket)
    tenant = await tenant_with_items(host)
    await drained(host)
    bucket.away = True
    await add(tenant, *"abcde")
    newest, key = host.node.awake.txid(tenant.key), tenant.key
    await killed(host)
    bucket.away = False
    async with replicated_host(data, bucket) as host:
        await drained(host)
        spans = [
            (file.min_txid, file.max_txid) for file in replica_of(host, key).listing(RAW_LEVEL)
        ]
        assert spans == [(txid, txid) for txid in range(1, newest + 1)]
        assert await values(host.tenants.get("acme")) == list("abcde")


async def test_a_host_stopped_without_its_bucket_ships_after_the_restart(
    data: Path, bucket: SwitchedBucket, impatient: None, tmp_path: Path
) -> None:
    """The log is cut at a clean stop: markers in ``behind`` tell the next run."""
    host = await start_host(data, bucket)
    tenant = await tenant_with_items(host)
    await drained(host)
    bucket.away = True
    await add(tenant, *"abc")
    key = tenant.key
    await host.close()
    assert list((data / "behind").glob(f"{key.id.hex()}*"))
    bucket.away = False
    async with replicated_host(data, bucket) as host:
        await drained(host)
        restored(replica_of(host, key), tmp_path / "copy")
        assert rows_of(tmp_path / "copy") == list("abc")
        await until(lambda: not list((data / "behind").glob(f"{key.id.hex()}*")))


async def test_a_tenant_deleted_before_a_kill_leaves_nothing_in_the_bucket(
    data: Path, bucket: SwitchedBucket, impatient: None
) -> None:
    host = await start_host(data, bucket)
    tenant = await tenant_with_items(host)
    await drained(host)
    bucket.away = True
    await host.tenants.delete("acme")
    await killed(host)
    bucket.away = False
    async with replicated_host(data, bucket) as host:
        await drained(host)
        assert replica_of(host, tenant.key).files() == []
        assert host.tenants.list("", 10, None).tenants == []


@pytest.mark.parametrize("lose", [_file, _position, _torn_position])
async def test_a_damaged_file_is_not_replaced_by_less_than_was_acknowledged(
    lose: Loss, data: Path, bucket: SwitchedBucket, impatient: None
) -> None:
    """The log was cut, the bucket was away: it lacks rows, so an operator must decide."""
    host = await start_host(data, bucket)
    tenant = await tenant_with_items(host)
    await add(tenant, "shipped")
    await drained(host)
    bucket.away = True
    await add(tenant, "only here")
    key = tenant.key
    await host.close()
    bucket.away = False
    lose(data, file_of(data, key))
    async with replicated_host(data, bucket) as host:
        await settle(host)
        with pytest.raises(CorruptError) as raised:
            await values(host.tenants.get("acme"))
        assert raised.value.code == "object_corrupt"
        assert file_of(data, key).exists() == (lose is not _file)


@pytest.mark.parametrize("lose", [_position, _torn_position])
async def test_what_the_log_still_has_completes_the_bucket_before_a_restore(
    lose: Loss, data: Path, bucket: SwitchedBucket, impatient: None
) -> None:
    host = await start_host(data, bucket)
    tenant = await tenant_with_items(host)
    await add(tenant, "shipped")
    await host.tenants.awake.sleep_now(tenant.key)
    await host.node.upkeep.make_durable(tenant.key)
    await drained(host)
    bucket.away = True
    await add(host.tenants.get("acme"), "only in the log")
    await killed(host)
    bucket.away = False
    lose(data, file_of(data, tenant.key))
    async with replicated_host(data, bucket) as host:
        assert await patient_values(host) == ["shipped", "only in the log"]


async def patient_values(host: Any) -> list[str]:
    """Ask again as long as the error says so."""
    for _ in range(500):
        try:
            return await values(host.tenants.get("acme"))
        except DosqlError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(0.01)
    raise AssertionError("it never came")


async def settle(host: Any) -> None:
    """Return when no shipment is at work."""
    shipments = host.cold.shipper._shipments
    await until(lambda: not any(each.is_moving for each in shipments.values()))


@pytest.mark.parametrize("at", ["rename", "unlink", "sync_dir", "write_position"])
async def test_a_crash_while_a_restored_file_is_put_in_its_place_is_made_good(
    at: str, data: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await crashed_restore(at, data, bucket, monkeypatch) == list("abc")


async def test_such_a_crash_without_the_mark_of_damage_would_mix_two_lives(
    data: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage."""
    found = await crashed_restore("write_position", data, bucket, monkeypatch, marks=False)
    assert found != list("abc")


async def crashed_restore(
    at: str,
    data: Path,
    bucket: SwitchedBucket,
    monkeypatch: pytest.MonkeyPatch,
    *,
    marks: bool = True,
) -> list[str]:
    """What is read after a crash during the restore of an object that another server took over.
    The log still holds the first commits of the object's life before, and one that is void."""
    host = await start_host(data, bucket)
    tenant = await tenant_with_items(host)
    await add(tenant, *"abc")
    await drained(host)
    cold, key = host.cold, tenant.key
    assert cold is not None
    fence_by_another(host, key)
    await add(tenant, "void")
    await until(lambda: cold.retrieval.is_void(key))
    await host.node.awake.moves.settled()

    def crash(*_: object, **__: object) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        if not marks:
            other = data.with_name("mark")
            patch.setattr("dosql.host.placing.damaged_path", lambda path: other)
        if at == "write_position":
            patch.setattr("dosql.host.placing.write_position", crash)
        else:
            patch.setattr(type(cold.retrieval._disk), at, crash)
        with pytest.raises(DosqlError):
            await values(host.tenants.get("acme"))
        await killed(host)
    bucket.away = not marks  # else the mixture may be noticed, and replaced, before it is read
    async with replicated_host(data, bucket) as host:
        found = await patient_values(host)
        check = await execute(host.tenants.get("acme"), "PRAGMA integrity_check")
        assert "ok" in str(check) or not marks
        bucket.away = False
        return found


def fence_by_another(host: Any, key: Any) -> None:
    """Another server has taken the object over."""
    replica = replica_of(host, key)
    head = replica.head()
    assert head is not None
    replica.fence(head, timestamp_ms=head.timestamp_ms, epoch=(12345 << 24) + 1)


# --- what comes to the bucket, and leaves it --------------------------------------------------


async def test_a_bucket_given_later_gets_what_was_there_before(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    async with replicated_host(data, SwitchedBucket(MemoryBucket())) as host:
        await add(await tenant_with_items(host), "old")
        await add(await tenant_with_items(host, "other"), "x")
        keys = [key_of(host, name) for name in ("acme", "other")]
    async with replicated_host(data, NamedBucket(bucket, "memory:other")) as host:
        await drained(host)
        found = [restored(replica_of(host, key), tmp_path / "copy") for key in (*keys, CATALOG_KEY)]
        assert all(found)
    shutil.rmtree(data)
    async with replicated_host(data, NamedBucket(bucket, "memory:other")) as host:
        assert await values(host.tenants.get("acme")) == ["old"]


class NamedBucket(SwitchedBucket):
    """A bucket of another URL."""

    def __init__(self, inner: SwitchedBucket, url: str) -> None:
        super().__init__(inner)
        self._url = url

    @property
    def url(self) -> str:
        return self._url


async def test_an_imported_database_is_shipped(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    source = tmp_path / "source.sqlite"
    connection = apsw.Connection(str(source))
    connection.execute("CREATE TABLE items(id INTEGER PRIMARY KEY, value TEXT)")
    connection.execute("INSERT INTO items(value) VALUES ('imported')")
    connection.close()
    async with replicated_host(data, bucket) as host:
        await tenant_with_items(host)
        await host.tenants.import_file("acme", source)
        await drained(host)
        restored(replica_of(host, key_of(host)), tmp_path / "copy")
        assert rows_of(tmp_path / "copy") == ["imported"]
    shutil.rmtree(data)
    async with replicated_host(data, bucket) as host:
        assert await values(host.tenants.get("acme")) == ["imported"]


async def test_a_deleted_tenant_leaves_the_bucket(data: Path, bucket: SwitchedBucket) -> None:
    async with replicated_host(data, bucket) as host:
        tenant = await tenant_with_items(host)
        await drained(host)
        await host.tenants.delete("acme")
        await drained(host)
        assert replica_of(host, tenant.key).files() == []


async def test_a_tenant_can_be_deleted_while_the_bucket_is_away(
    data: Path, bucket: SwitchedBucket, impatient: None
) -> None:
    """Its files go when the bucket is back."""
    async with replicated_host(data, bucket) as host:
        tenant = await tenant_with_items(host)
        await drained(host)
        bucket.away = True
        await host.tenants.delete("acme")
        with pytest.raises(DosqlError):
            host.tenants.get("acme")
        bucket.away = False
        await until(lambda: replica_of(host, tenant.key).files() == [])


async def test_a_replaced_server_that_deletes_a_tenant_deletes_nothing_in_the_bucket(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    """It learns that it was replaced when its catalog is to be shipped: too late for the tenant,
    had its files gone first."""
    first = await start_host(data, bucket)
    tenant = await tenant_with_items(first)
    await add(tenant, "mine")
    await drained(first)
    async with replicated_host(tmp_path / "second", bucket) as second:
        await first.tenants.delete("acme")
        assert first.cold is not None
        await until(lambda: first.cold is not None and first.cold.retrieval.replaced)
        await drained(first)
        assert await values(second.tenants.get("acme")) == ["mine"]
        assert replica_of(second, tenant.key).files() != []
        await first.close()


# --- sleeping and waking ----------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["local", "bucket"])
async def test_objects_sleep_and_wake_under_replication_without_asking_the_bucket(
    durability: Any, data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, durability, open_objects_max=2) as host:
        names = [f"t{number}" for number in range(5)]
        for name in names:
            await tenant_with_items(host, name)
        for turn in range(3):
            for name in names:
                await add(host.tenants.get(name), f"{name}-{turn}")
        await drained(host)
        before = bucket.usage
        for name in names:
            expected = [f"{name}-{turn}" for turn in range(3)]
            assert await values(host.tenants.get(name)) == expected
        assert host.statistics().evictions > 10
        usage = bucket.usage
        assert (usage.lists, usage.gets) == (before.lists, before.gets)
    shutil.rmtree(data)
    async with replicated_host(data, bucket, durability, open_objects_max=2) as host:
        for name in names:
            assert len(await values(host.tenants.get(name))) == 3


# --- the mode ``bucket`` ----------------------------------------------------------------------


async def test_a_reply_waits_until_the_bucket_has_the_commit(
    data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, "bucket") as host:
        tenant = await tenant_with_items(host)
        bucket.hold()
        write = asyncio.create_task(add(tenant, "one"))
        await until(lambda: len(bucket.puts) > 0 and bucket.puts[-1].find(tenant.key.id.hex()) > 0)
        read = asyncio.create_task(values(tenant))
        await asyncio.wait([write, read], timeout=0.05)
        assert not write.done()
        assert not read.done(), "a read saw what the bucket did not have"
        bucket.let_go()
        await write
        assert await read == ["one"]


async def test_commits_that_come_while_a_file_is_on_its_way_share_the_next(
    data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, "bucket") as host:
        tenant = await tenant_with_items(host)
        first = shipped_txid(host, tenant.key)
        bucket.hold()
        writes = [asyncio.create_task(add(tenant, "0"))]
        count = len(bucket.puts)
        await until(lambda: len(bucket.puts) > count)
        writes += [asyncio.create_task(add(tenant, str(number))) for number in range(1, 50)]
        await asyncio.sleep(0)
        bucket.let_go()
        await asyncio.gather(*writes)
        assert shipped_txid(host, tenant.key) <= first + 3
        assert len(await values(tenant)) == 50


async def test_an_outage_refuses_writes_with_a_code_loses_nothing_and_ends(
    data: Path, bucket: SwitchedBucket, impatient: None, tmp_path: Path
) -> None:
    async with replicated_host(data, bucket, "bucket") as host:
        tenant = await tenant_with_items(host)
        await add(tenant, "before")
        bucket.away = True
        with pytest.raises(OutcomeUnknownError) as unknown:
            await add(tenant, "during")
        assert unknown.value.code == "bucket_unavailable"
        with pytest.raises(UnavailableError) as refused:
            await add(tenant, "refused")
        assert refused.value.code == "bucket_unavailable"
        with pytest.raises(UnavailableError) as ready:
            await host.check()
        assert ready.value.code == "bucket_unavailable"
        bucket.away = False
        await drained(host)
        await host.check()
        await add(tenant, "after")
        assert await values(tenant) == ["before", "during", "after"]
        restored(replica_of(host, tenant.key), tmp_path / "copy")
        assert rows_of(tmp_path / "copy") == ["before", "during", "after"]


async def test_reads_of_what_the_bucket_has_go_on_in_an_outage(
    data: Path, bucket: SwitchedBucket, impatient: None
) -> None:
    async with replicated_host(data, bucket, "bucket") as host:
        tenant = await tenant_with_items(host)
        quiet = await tenant_with_items(host, "quiet")
        await add(quiet, "kept")
        bucket.away = True
        with pytest.raises(DosqlError):
            await add(tenant, "lost in the outage")
        assert await values(quiet) == ["kept"]
        bucket.away = False


async def test_nothing_acknowledged_in_mode_bucket_is_lost_with_the_data_directory(
    data: Path, bucket: SwitchedBucket
) -> None:
    host = await start_host(data, bucket, "bucket")
    tenant = await tenant_with_items(host)
    acknowledged: list[str] = []

    async def write(client: int) -> None:
        for number in range(20):
            await add(tenant, f"{client}-{number}")
            acknowledged.append(f"{client}-{number}")

    tasks = [asyncio.create_task(write(client)) for client in range(4)]
    await until(lambda: len(acknowledged) > 30)
    known = list(acknowledged)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await killed(host)
    shutil.rmtree(data)
    async with replicated_host(data, bucket, "bucket") as host:
        assert set(known) <= set(await values(host.tenants.get("acme")))


async def test_an_object_whose_mode_became_bucket_ships_its_tail_first(
    data: Path, bucket: SwitchedBucket, impatient: None
) -> None:
    host = await start_host(data, bucket, "local")
    tenant = await tenant_with_items(host)
    await drained(host)
    bucket.away = True
    await add(tenant, *"abc")
    await host.close()
    bucket.away = False
    async with replicated_host(data, bucket, "bucket") as host:
        await add(host.tenants.get("acme"), "d")
        assert await values(host.tenants.get("acme")) == list("abcd")
    shutil.rmtree(data)
    async with replicated_host(data, bucket, "bucket") as host:
        assert await values(host.tenants.get("acme")) == list("abcd")


# --- the mode ``local`` -----------------------------------------------------------------------


async def test_writes_go_on_without_the_bucket_and_the_host_says_how_far_behind_it_is(
    data: Path, bucket: SwitchedBucket, impatient: None, tmp_path: Path
) -> None:
    async with replicated_host(data, bucket) as host:
        tenant = await tenant_with_items(host)
        await drained(host)
        bucket.away = True
        await add(tenant, *"abc")
        await until(lambda: host.statistics().bucket_stalled_seconds > 0)
        statistics = host.statistics()
        assert statistics.objects_behind == 1
        assert statistics.spool_bytes > 0
        await host.check()
        bucket.away = False
        await drained(host)
        assert host.statistics().objects_behind == 0
        assert host.statistics().bucket_stalled_seconds == 0
        assert host.statistics().spool_bytes == 0
        restored(replica_of(host, tenant.key), tmp_path / "copy")
        assert rows_of(tmp_path / "copy") == list("abc")


# --- another server ---------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["local", "bucket"])
async def test_the_first_of_two_servers_answers_that_it_was_replaced(
    durability: Any, data: Path, bucket: SwitchedBucket, tmp_path: Path, impatient: None
) -> None:
    """For good, at once, and without a crash; the second has everything."""
    first = await start_host(data, bucket, durability)
    tenant = await tenant_with_items(first)
    await add(tenant, "one")
    await drained(first)
    second = await start_host(tmp_path / "second", bucket, durability)
    await add(second.tenants.get("acme"), "two")
    for _ in range(3):
        with pytest.raises(DosqlError) as raised:
            async with asyncio.timeout(5):
                await first.tenants.create("new")
                await drained(first)
                await first.tenants.create("newer")
        assert raised.value.code == "object_moved"
        with pytest.raises(UnavailableError, match="taken over"):
            await first.check()
    async with asyncio.timeout(10):
        await first.close()
    assert await values(second.tenants.get("acme")) == ["one", "two"]
    await second.close()


async def test_a_data_directory_put_back_to_an_older_state_is_not_mistaken_for_the_owner(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    """It carries the same epoch; what the bucket has newer wins."""
    await stored(data, bucket, "one")
    shutil.copytree(data, tmp_path / "backup")
    async with replicated_host(data, bucket) as host:
        await add(host.tenants.get("acme"), "two", "three")
        await drained(host)
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)
    async with replicated_host(data, bucket, "bucket") as host:
        assert await values(host.tenants.get("acme")) == ["one", "two", "three"]
        await add(host.tenants.get("acme"), "four")
    shutil.rmtree(data)
    async with replicated_host(data, bucket) as host:
        assert await values(host.tenants.get("acme")) == ["one", "two", "three", "four"]


# --- objects of classes -----------------------------------------------------------------------

app = App()


@app.durable_object
class Jar(DurableObject):
    def add(self) -> int:
        count = int(self.ctx.storage.kv.get("count", 0)) + 1
        self.ctx.storage.kv.put("count", count)
        return count


class HeldCatalog(WrappedBucket):
    """What is written to the catalog waits until it is let through."""

    def __init__(self, inner: MemoryBucket) -> None:
        super().__init__(inner)
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.arrived = 0

    def put(self, key: str, *some: Any, **named: Any) -> ObjectInfo:
        if key.startswith(CATALOG_PREFIX):
            self.arrived += 1
            assert self.open_gate.wait(60)
        return super().put(key, *some, **named)


async def test_an_object_is_acknowledged_only_when_the_bucket_s_catalog_knows_of_it(
    data: Path,
) -> None:
    """Also the second of two that come while the catalog's change for the first is on its way."""
    bucket = HeldCatalog(MemoryBucket())
    host = await start_host(data, bucket, "bucket", app=app)

    def jar(name: str) -> Any:
        return host.objects.namespace("jar").get_by_name(name)

    await jar("first").add()
    bucket.open_gate.clear()
    arrived = bucket.arrived
    calls = [asyncio.create_task(jar("second").add())]
    await until(lambda: bucket.arrived > arrived)
    calls.append(asyncio.create_task(jar("third").add()))
    done, _ = await asyncio.wait(calls, timeout=0.3)
    assert not done, "acknowledged, and the catalog in the bucket does not know of it"
    bucket.open_gate.set()
    assert await asyncio.gather(*calls) == [1, 1]
    await killed(host)
    shutil.rmtree(data)
    host = await start_host(data, bucket, "bucket", app=app)
    assert len(host.objects.list("jar", "", 10, None).objects) == 3
    assert [await jar(name).add() for name in ("first", "second", "third")] == [2, 2, 2]
    await host.close()


# --- whose the bucket is ----------------------------------------------------------------------


async def test_a_server_that_starts_on_its_old_directory_takes_over_before_it_serves(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    """In the mode local too, though it could do without the bucket: its catalog may be another's
    since, and then its own is void."""
    async with replicated_host(data, bucket) as first:
        await tenant_with_items(first)
    async with replicated_host(tmp_path / "second", bucket) as second:
        await tenant_with_items(second, "globex")
        await drained(second)
        async with replicated_host(data, bucket) as first:
            assert [each.name for each in first.tenants.list("", 10, None).tenants] == [
                "acme",
                "globex",
            ]
            with contextlib.suppress(DosqlError):  # it has the log, so it may still say yes
                await second.tenants.create("late")
            await until(lambda: second.cold is not None and second.cold.retrieval.replaced)
            with pytest.raises(UnavailableError) as raised:
                await second.check()
            assert raised.value.code == "object_moved"


async def test_a_server_that_starts_without_its_bucket_adds_nothing_to_what_is_another_s(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    """The other one has the catalog, but has not touched the tenant yet."""
    async with replicated_host(data, bucket) as first:
        tenant = await tenant_with_items(first)
    async with replicated_host(tmp_path / "second", bucket) as second:
        before = shipped_txid(second, tenant.key)
        bucket.away = True
        first = await start_host(data, bucket)
        await add(first.tenants.get("acme"), "late")
        await until(lambda: first.cold is not None and first.cold.shipper.is_stalled())
        bucket.away = False
        await until(lambda: first.cold is not None and first.cold.retrieval.replaced)
        await first.close()
        assert shipped_txid(second, tenant.key) == before
        assert await values(second.tenants.get("acme")) == []


async def test_an_image_of_the_newest_commit_is_ours_after_a_restart(
    data: Path, bucket: SwitchedBucket, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit log has the same commit: the time of both must be that at which it was made."""
    host = await start_host(data, bucket)
    tenant = await tenant_with_items(host)
    await drained(host)
    bucket.away = True
    assert host.cold is not None
    await add(tenant, "on its way")
    await until(host.cold.shipper.is_stalled)
    await add(tenant, "kept")
    shipment = host.cold.shipper.find(tenant.key)
    assert shipment is not None
    shipment.drop_spool()
    bucket.away = False
    await drained(host)
    assert host.cold._images == 1
    await killed(host)
    async with replicated_host(data, bucket) as host:
        await drained(host)
        assert await values(host.tenants.get("acme")) == ["on its way", "kept"]
    assert "taken over" not in caplog.text
