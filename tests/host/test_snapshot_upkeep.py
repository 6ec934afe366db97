"""Verification and retention by hand, over a real host and a bucket in a directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import dosql.host.snapshots
from dosql.bookmarks import Bookmark
from dosql.errors import ConflictError, NotFoundError
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host, HostSettings
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.plan import RAW_LEVEL, FileInfo
from dosql.replica.replica import Replica
from dosql.replica.verification import Report, verify
from dosql.testing.clock import ManualClock
from tests.support.hosts import call, execute, tenant_with_items

DAY_S = 24 * 3_600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def host(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Host]:
    cold = ColdTierSettings(LocalBucket(tmp_path / "bucket"), directory=True)
    settings = HostSettings(tmp_path / "data", cold=cold)
    host = await Host.start(settings, clock=clock, timers=clock)
    yield host
    await host.close()


def replica_of(host: Host, name: str = "acme") -> Replica:
    assert host.cold is not None
    return host.cold.shipper.replica(host.tenants.entry(name).key)


async def write(host: Host, clock: ManualClock, count: int) -> Bookmark:
    """One commit per second, each of them shipped; the newest."""
    tenant = host.tenants.get("acme")
    assert host.cold is not None
    for number in range(count):
        value = f"{number} at {clock.now_ms()}"
        await execute(tenant, "INSERT INTO items(value) VALUES (?)", value)
        await host.cold.drain()
        clock.advance(1)
    return (await call(tenant, "SELECT 1")).bookmark


def damage(replica: Replica, file: FileInfo) -> None:
    key = replica.key(file)
    data = bytearray(replica.bucket.get(key))
    data[len(data) // 2] ^= 1
    replica.bucket.put(key, bytes(data))


# --- verification -----------------------------------------------------------------------------


async def test_what_is_sound_is_said_to_be_so(host: Host, clock: ManualClock) -> None:
    await tenant_with_items(host)
    mark = await write(host, clock, 5)
    report = await host.past.snapshots.verify("acme")
    assert (report.sound, report.failure, report.damaged) == (True, None, [])
    assert report.bookmark == str(mark)
    assert report.files == len(replica_of(host).files())


async def test_a_verification_waits_for_commits_that_are_on_their_way(host: Host) -> None:
    tenant = await tenant_with_items(host)
    await execute(tenant, "INSERT INTO items(value) VALUES (1)")
    mark = (await call(tenant, "SELECT 1")).bookmark
    assert (await host.past.snapshots.verify("acme")).bookmark == str(mark)


async def test_a_damaged_commit_is_named_and_the_state_is_not_said_to_be_whole(
    host: Host, clock: ManualClock
) -> None:
    await tenant_with_items(host)
    await write(host, clock, 5)
    replica = replica_of(host)
    bad = replica.listing(RAW_LEVEL)[3]
    damage(replica, bad)
    report = await host.past.snapshots.verify("acme", repair=True)
    assert not report.sound
    assert report.failure is not None
    (found,) = report.damaged
    assert (found.level, found.name, found.repaired) == (RAW_LEVEL, bad.name, False)


async def test_a_damaged_snapshot_is_made_anew(host: Host, clock: ManualClock) -> None:
    await tenant_with_items(host)
    mark = await write(host, clock, 5)
    await host.past.snapshots.create("acme")
    replica = replica_of(host)
    (snapshot,) = [each for each in replica.files() if each.level == 9]
    damage(replica, snapshot)
    told = await host.past.snapshots.verify("acme")
    assert (told.sound, told.failure) == (False, None), "its state is still to be had"
    assert told.bookmark == str(mark)
    repaired = await host.past.snapshots.verify("acme", repair=True)
    assert repaired.sound
    assert [each.repaired for each in repaired.damaged] == [True]
    again = await host.past.snapshots.verify("acme")
    assert (again.sound, again.damaged) == (True, [])


async def test_commits_that_the_bucket_lost_are_missed(host: Host, clock: ManualClock) -> None:
    """Without them what is in the bucket is whole, but it is not the newest state."""
    await tenant_with_items(host)
    await write(host, clock, 5)
    replica = replica_of(host)
    replica.bucket.delete([replica.key(replica.listing(RAW_LEVEL)[-1])])
    report = await host.past.snapshots.verify("acme")
    assert not report.sound
    assert report.failure is not None and "cannot be restored" in report.failure


async def test_a_file_that_retention_removes_meanwhile_is_not_damaged(
    host: Host, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant_with_items(host)
    await write(host, clock, 5)
    await host.past.snapshots.create("acme")
    replica = replica_of(host)
    going = replica.key(replica.listing(RAW_LEVEL)[3])

    def verify_while_it_goes(*arguments: Any, **options: Any) -> Report:
        def go(done: int, total: int) -> None:
            replica.bucket.delete([going])

        return verify(*arguments, **options, on_progress=go)

    monkeypatch.setattr(dosql.host.snapshots, "verify", verify_while_it_goes)
    report = await host.past.snapshots.verify("acme", everything=True)
    assert (report.sound, report.damaged) == (True, [])
    assert going not in {replica.key(each) for each in replica.files()}


async def test_there_must_be_something_to_verify(host: Host) -> None:
    await host.tenants.create("acme")
    with pytest.raises(ConflictError) as caught:
        await host.past.snapshots.verify("acme")
    assert caught.value.code == "tenant_empty"
    with pytest.raises(NotFoundError):
        await host.past.snapshots.verify("nobody")


async def test_a_branch_that_was_never_written_can_be_verified(
    host: Host, clock: ManualClock
) -> None:
    await tenant_with_items(host)
    await write(host, clock, 2)
    await host.past.branches.create("acme", "dev")
    assert (await host.past.snapshots.verify("dev")).sound


# --- retention --------------------------------------------------------------------------------


async def old_and_new(host: Host, clock: ManualClock) -> tuple[Bookmark, Bookmark]:
    """Commits and a snapshot that are 40 days old, and new ones; the newest bookmark of each."""
    await tenant_with_items(host)
    await write(host, clock, 5)
    old = await write(host, clock, 1)
    await host.past.snapshots.create("acme")
    await write(host, clock, 2)
    clock.advance(40 * DAY_S)
    return old, await write(host, clock, 3)


async def test_what_has_expired_is_told_and_then_removed(host: Host, clock: ManualClock) -> None:
    old, new = await old_and_new(host, clock)
    replica = replica_of(host)
    before = replica.files()
    told = await host.past.snapshots.prune("acme", dry_run=True)
    assert replica.files() == before
    done = await host.past.snapshots.prune("acme")
    gone = set(before) - set(replica.files())
    assert any(each.max_txid < old.txid for each in gone)
    key = host.tenants.entry("acme").key
    assert (await host.past.travel.find(key, old)).txid == old.txid, "30 days back from here"
    assert (done.files, done.size_bytes) == (len(gone), sum(each.size for each in gone))
    assert (told.files, told.size_bytes, told.dry_run) == (done.files, done.size_bytes, True)
    report = await host.past.snapshots.verify("acme", everything=True)
    assert (report.sound, report.bookmark) == (True, str(new))
    assert (await host.past.snapshots.prune("acme")).files == 0


async def test_where_a_branch_began_is_kept(host: Host, clock: ManualClock) -> None:
    await tenant_with_items(host)
    start = await write(host, clock, 3)
    await host.past.branches.create("acme", "dev")
    await write(host, clock, 3)
    await host.past.snapshots.create("acme")
    clock.advance(40 * DAY_S)
    await write(host, clock, 1)
    await host.past.snapshots.prune("acme")
    found = await host.past.travel.find(host.tenants.entry("acme").key, start)
    assert found.txid == start.txid
    assert (await host.past.branches.diff("acme", "dev", against="start")).tables == []


async def test_a_snapshot_is_not_judged_by_files_that_are_being_removed(
    host: Host, clock: ManualClock
) -> None:
    """Retention relies on the snapshot, and whoever deletes it on what retention removes: one
    after the other, or the state is lost."""
    old, _ = await old_and_new(host, clock)
    assert host.cold is not None
    compaction, snapshots = host.cold.compaction, host.past.snapshots
    await compaction.removing.acquire()
    prune = asyncio.create_task(snapshots.prune("acme"))
    await clock.settle()
    delete = asyncio.create_task(snapshots.delete("acme", old))
    await clock.settle()
    assert not prune.done() and not delete.done()
    compaction.removing.release()
    assert (await prune).files > 0
    with pytest.raises(ConflictError) as caught:
        await delete
    assert caught.value.code == "snapshot_needed"
    assert (await snapshots.verify("acme")).sound
