"""Faults at the worst moment, each one once a bug: forced here, not left to chance."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from dosql.clock import SystemRandomness
from dosql.errors import CorruptError, DosqlError, UnavailableError
from dosql.host.host import Host
from dosql.host.storage import recover
from dosql.log.disk import RealDisk
from dosql.log.node_log import LogWriteError, NodeLog
from dosql.log.records import Batch, ObjectKey
from dosql.log.redo import damaged_path, database_path
from dosql.pages import PageSet
from tests.support.disks import FailingDisk, HeldDisk, WatchedDisk
from tests.support.hosts import crashed, execute, running_host, settings, tenant_with_items, until

KEY = ObjectKey(bytes(32), 1)


def batch(txid: int) -> Batch:
    return Batch(KEY, txid, txid, PageSet(512, 1, {1: bytes([txid]) * 512}))


async def answered(host: Host, name: str, sql: str) -> object:
    """The answer, once the host is over its last failure."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await execute(host.tenants.get(name), sql)
            except UnavailableError:
                await asyncio.sleep(0.01)


# --- objects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["export", "long wal"])
async def test_an_object_that_was_checkpointed_before_it_slept_keeps_its_place_in_the_log(
    tmp_path: Path, reason: str
) -> None:
    """Else its next batches are numbered like old ones, and a recovery passes them over."""
    host = await Host.start(settings(tmp_path))
    tenant = await tenant_with_items(host)
    await execute(tenant, "INSERT INTO items(value) VALUES ('early')")
    instance = host.node.awake.peek(tenant.key)
    assert instance is not None
    if reason == "export":
        async with host.tenants.export("acme"):
            pass
    else:
        await host.node.upkeep.checkpoint(instance)
    before = host.tenants.info("acme").txid
    await host.node.awake.sleep(instance)
    await execute(tenant, "INSERT INTO items(value) VALUES ('late')")
    assert host.tenants.info("acme").txid == before + 1
    await crashed(host)
    async with running_host(tmp_path) as host:
        rows = await execute(host.tenants.get("acme"), "SELECT value FROM items ORDER BY id")
        assert rows == [["early"], ["late"]]


@pytest.mark.parametrize("deed", ["delete", "import"])
async def test_a_deletion_that_fails_leaves_every_acknowledged_write(
    tmp_path: Path, deed: str
) -> None:
    disk = FailingDisk()
    host = await Host.start(settings(tmp_path / "data"), disk=disk)
    tenant = await tenant_with_items(host)
    await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
    source = tmp_path / "source.sqlite"
    source.write_bytes(b"")
    disk.fail("sync", times=1)
    with pytest.raises(UnavailableError):
        if deed == "delete":
            await host.tenants.delete("acme")
        else:
            await host.tenants.import_file("acme", source)
    assert await answered(host, "acme", "SELECT value FROM items") == [["kept"]]
    await execute(tenant, "INSERT INTO items(value) VALUES ('more')")
    await crashed(host)
    async with running_host(tmp_path / "data") as host:
        rows = await execute(host.tenants.get("acme"), "SELECT count(*) FROM items")
        assert rows == [[2]]


async def test_an_object_file_whose_sync_failed_is_written_again_before_the_log_is_cut(
    tmp_path: Path,
) -> None:
    """After a failed sync the system may count its pages as written: a second sync proves
    nothing. So the file is redone from the log, and the object refuses what it cannot keep."""
    operations: list[str] = []
    failures = [OSError(errno.EIO, "injected")]

    def watch(operation: str, path: Path) -> None:
        if path == file and operation in ("pwrite", "sync"):
            operations.append(operation)
            if operation == "sync" and failures:
                raise failures.pop()

    disk = WatchedDisk(lambda operation, path: watch(operation, path))
    file = Path()
    async with running_host(tmp_path, disk=disk) as host:
        tenant = await tenant_with_items(host)
        await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
        file = database_path(tmp_path / "objects", tenant.key)
        with pytest.raises((OSError, DosqlError)):
            await host.node.upkeep.make_durable(tenant.key)
        assert operations == ["sync"]
        assert await answered(host, "acme", "SELECT value FROM items") == [["kept"]]
        await host.node.upkeep.make_durable(tenant.key)
        assert "pwrite" in operations[1:]
        assert operations[-1] == "sync"
        assert await answered(host, "acme", "SELECT value FROM items") == [["kept"]]


async def test_nobody_writes_to_a_tenant_whose_creation_is_not_durable_yet(
    tmp_path: Path,
) -> None:
    """Else the write is acknowledged, and its tenant may be gone."""
    failing = FailingDisk()
    held = HeldDisk()
    inner = held.before

    def both(operation: str, path: Path) -> None:
        inner(operation, path)
        failing.before(operation, path)

    held.before = both
    async with running_host(tmp_path, disk=held) as host:
        held.hold()
        failing.fail("sync", times=1)
        creation = asyncio.create_task(host.tenants.create("acme"))
        await asyncio.to_thread(held.waiting.wait, 10)
        tenant = await host.tenants.ensure("acme")
        write = asyncio.create_task(execute(tenant, "CREATE TABLE t(x)"))
        await asyncio.sleep(0.05)
        held.release()
        with pytest.raises(UnavailableError):
            await creation
        with pytest.raises(DosqlError):
            await write
        await until(lambda: host.node.awake.peek(tenant.key) is None)


async def test_a_host_whose_log_fails_for_good_still_stops_and_gives_its_directory_back(
    tmp_path: Path,
) -> None:
    disk = FailingDisk()
    host = await Host.start(settings(tmp_path), disk=disk)
    tenant = await tenant_with_items(host)
    await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
    disk.fail("pwrite", "sync", "create", "rename", "sync_dir", "open")
    with pytest.raises(DosqlError):
        await host.tenants.create("lost")
    await host.close()
    async with running_host(tmp_path) as host:
        assert await execute(host.tenants.get("acme"), "SELECT value FROM items") == [["kept"]]


async def test_what_an_object_held_before_its_first_durable_commit_is_forgotten(
    tmp_path: Path,
) -> None:
    """SQLite writes a header before the first commit; a crash may tear it."""
    host = await Host.start(settings(tmp_path))
    await host.tenants.create("acme")
    tenant = host.tenants.get("acme")
    await crashed(host)
    file = database_path(tmp_path / "objects", tenant.key)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"SQLite format 3\0" + bytes(496))
    async with running_host(tmp_path) as host:
        assert await execute(host.tenants.get("acme"), "SELECT count(*) FROM sqlite_schema")


async def test_damage_found_at_a_start_is_remembered_over_a_power_loss(tmp_path: Path) -> None:
    """The log is set aside after it: only the mark says that commits are missing."""
    host = await Host.start(settings(tmp_path))
    acme = await tenant_with_items(host, "acme")
    await execute(acme, "INSERT INTO items(value) VALUES ('needle')")
    await tenant_with_items(host, "globex")  # what stands behind it proves that it was durable
    await crashed(host)
    for segment in (tmp_path / "log").glob("*.log"):
        segment.write_bytes(segment.read_bytes().replace(b"needle", b"noodle"))
    mark = damaged_path(database_path(tmp_path / "objects", acme.key))
    operations: list[tuple[str, Path]] = []
    disk = WatchedDisk(lambda operation, path: operations.append((operation, path)))
    async with running_host(tmp_path, disk=disk):
        assert mark.exists()
    synced = operations.index(("sync", mark))
    cut = next(
        index
        for index, (operation, path) in enumerate(operations)
        if operation == "rename" and path.suffix == ".log"
    )
    assert ("sync_dir", mark.parent) in operations[synced:cut]


@pytest.mark.parametrize("end", ["clean", "crash"])
async def test_an_object_whose_file_is_missing_is_not_served_empty(
    tmp_path: Path, end: str
) -> None:
    host = await Host.start(settings(tmp_path))
    tenant = await tenant_with_items(host)
    await host.node.upkeep.make_durable(tenant.key)
    await execute(tenant, "INSERT INTO items(value) VALUES ('kept')")
    await (host.close() if end == "clean" else crashed(host))
    database_path(tmp_path / "objects", tenant.key).unlink()
    async with running_host(tmp_path) as host:
        with pytest.raises(CorruptError):
            await execute(host.tenants.get("acme"), "SELECT * FROM items")


# --- the log ----------------------------------------------------------------------------------


def test_a_first_start_that_was_killed_does_not_stop_the_second(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(operation: str, path: Path) -> None:
        if path.name == "manifest.draft":
            raise KilledError

    with pytest.raises(KilledError):
        NodeLog(tmp_path, disk=WatchedDisk(kill), randomness=SystemRandomness())
    assert list(tmp_path.glob("*.log"))
    log = NodeLog(tmp_path, disk=RealDisk(), randomness=SystemRandomness())
    assert list(log.replay()) == []
    log.append([batch(1)])
    log.close()


def test_two_preparations_of_the_spare_never_write_to_a_segment_in_use(tmp_path: Path) -> None:
    """The start and a cut both prepare one; the later writer must not hold the earlier's file."""
    began = threading.Event()
    go_on = threading.Event()
    slow: list[int] = []

    def watch(operation: str, path: Path) -> None:
        if operation == "pwrite" and path.name == "spare.draft" and threading.get_ident() in slow:
            began.set()
            go_on.wait(1)

    log = NodeLog(
        tmp_path, disk=WatchedDisk(watch), randomness=SystemRandomness(), segment_bytes=4096
    )

    def late() -> None:
        slow.append(threading.get_ident())
        log.prepare_spare()

    thread = threading.Thread(target=late)
    thread.start()
    began.wait(10)
    quick = threading.Thread(target=log.prepare_spare)
    quick.start()
    quick.join(0.2)
    for txid in range(1, 9):  # several segments: the spare comes into use
        log.append([batch(txid)])
    go_on.set()
    thread.join()
    quick.join()
    log.close()
    again = NodeLog(tmp_path, disk=RealDisk(), randomness=SystemRandomness(), segment_bytes=4096)
    assert list(again.replay()) == [batch(txid) for txid in range(1, 9)]
    again.close()


@pytest.mark.parametrize("operation", ["sync_dir", "rename", "create", "pwrite"])
def test_a_roll_that_failed_half_way_is_never_appended_behind(
    tmp_path: Path, operation: str
) -> None:
    """The manifest on disk may name the new segment already: nothing goes to the old one."""
    disk = FailingDisk()
    directory = tmp_path / "log" / "log"
    directory.mkdir(parents=True)
    log = NodeLog(directory, disk=disk, randomness=SystemRandomness())
    log.append([batch(1)])
    disk.fail(operation)
    with pytest.raises(OSError, match="injected"):
        log.cut_all()
    disk.heal()
    log.append([batch(2)])
    log.close()
    again = NodeLog(directory, disk=RealDisk(), randomness=SystemRandomness())
    assert list(again.replay()) == [batch(1), batch(2)]
    again.close()


def test_an_unsettled_failure_may_come_back_but_nothing_behind_it_is_lost(tmp_path: Path) -> None:
    """Sync and roll both fail: the outcome is unknown, and later groups go elsewhere."""
    disk = FailingDisk()
    directory = tmp_path / "log" / "log"
    directory.mkdir(parents=True)
    log = NodeLog(directory, disk=disk, randomness=SystemRandomness())
    log.append([batch(1)])
    disk.fail("sync", "create", "rename", "sync_dir")
    with pytest.raises(LogWriteError) as failure:
        log.append([batch(2)])
    assert not failure.value.settled
    disk.heal()
    log.append([batch(2)])
    log.close()
    again = NodeLog(directory, disk=RealDisk(), randomness=SystemRandomness())
    assert list(again.replay()) == [batch(1), batch(2)]
    again.close()


def test_a_group_that_a_killed_process_left_is_durable_before_any_file_is_changed_by_it(
    tmp_path: Path,
) -> None:
    """Else a power loss during the recovery leaves pages of a commit that is in no log."""
    (tmp_path / "log").mkdir()
    log = NodeLog(tmp_path / "log", disk=RealDisk(), randomness=SystemRandomness())
    for txid in (1, 2):
        log.append([batch(txid)])
    log.close()
    operations: list[str] = []
    disk = WatchedDisk(lambda operation, path: operations.append(f"{operation} {path.suffix}"))
    log = NodeLog(tmp_path / "log", disk=disk, randomness=SystemRandomness())
    recover(log, tmp_path / "objects", disk)
    log.close()
    first, second = (at for at, each in enumerate(operations) if each == "pwrite .sqlite")
    rewritten = operations.index("pwrite .log")
    synced = operations.index("sync .log")
    assert first < rewritten < synced < second
