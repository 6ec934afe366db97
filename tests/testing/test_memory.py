"""The ground in memory: real SQLite, and durable exactly when the log says so."""

from __future__ import annotations

import asyncio

import pytest

from dosql.errors import ConstraintError, DosqlError, ObjectResetError, UnavailableError
from dosql.log.records import ObjectKey
from dosql.objects.ground import Ground
from dosql.objects.instance import InstanceClosed
from dosql.testing.memory import MemoryGround
from dosql.testing.memory_log import MemoryLog

KEY = ObjectKey(b"k" * 32, 1)
OTHER = ObjectKey(b"o" * 32, 1)


def ground_with_table(log: MemoryLog | None = None, key: ObjectKey = KEY) -> MemoryGround:
    ground = MemoryGround(key, log=log)
    commit(ground, "CREATE TABLE items (value TEXT UNIQUE)")
    return ground


def commit(ground: Ground, sql: str) -> None:
    """One statement in one transaction, as the end of a step commits it."""
    with ground.db.transaction():
        ground.db.run(sql)
    ground.after_work()


def add(ground: Ground, value: str) -> None:
    commit(ground, f"INSERT INTO items VALUES ('{value}')")


def items(ground: Ground) -> list[str]:
    return [str(row[0]) for row in ground.db.query("SELECT value FROM items ORDER BY 1").rows]


def test_it_is_a_ground() -> None:
    ground: Ground = MemoryGround(KEY)
    assert ground.bookmark.txid == ground.durable_txid == 0


async def test_a_commit_is_durable_soon_unless_the_log_is_held() -> None:
    ground = ground_with_table()
    assert ground.durable_txid == 0
    await ground.durable(ground.bookmark.txid)
    assert ground.durable_txid == 1
    ground.log.hold()
    add(ground, "a")
    waiting = asyncio.ensure_future(ground.durable(ground.bookmark.txid))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    ground.log.flush()
    await waiting
    assert ground.durable_txid == 2


async def test_commits_between_two_flushes_are_one_batch() -> None:
    log = MemoryLog()
    log.hold()
    ground = ground_with_table(log)
    add(ground, "a")
    add(ground, "b")
    assert ground.bookmark.txid == 1
    log.flush()
    add(ground, "c")
    assert (ground.durable_txid, ground.bookmark.txid) == (1, 2)


async def test_a_crash_leaves_what_was_flushed_and_nothing_else() -> None:
    log = MemoryLog()
    log.hold()
    ground = ground_with_table(log)
    add(ground, "durable")
    log.flush()
    add(ground, "lost")
    found = MemoryGround(KEY, log=log.crash())
    assert items(found) == ["durable"]
    assert found.durable_txid == 1
    log.flush()
    assert items(MemoryGround(KEY, log=log.crash())) == ["durable"], "the old log is dead"


async def test_what_was_written_and_not_acknowledged_survives_a_crash() -> None:
    log = MemoryLog()
    log.hold()
    ground = ground_with_table(log)
    add(ground, "written")
    log.write()
    assert ground.durable_txid == 0
    assert items(MemoryGround(KEY, log=log.crash())) == ["written"]


async def test_an_open_transaction_is_in_no_image() -> None:
    log = MemoryLog()
    log.hold()
    ground = ground_with_table(log)
    add(ground, "before")
    ground.db.begin()
    ground.db.run("INSERT INTO items VALUES ('open')")
    log.flush()
    assert items(MemoryGround(KEY, log=log.crash())) == ["before"]


async def test_a_transaction_that_began_before_the_commit_was_noticed_is_in_no_image() -> None:
    log = MemoryLog()
    log.hold()
    ground = ground_with_table(log)
    with ground.db.transaction():
        ground.db.run("INSERT INTO items VALUES ('before')")
    ground.db.begin()
    ground.db.run("INSERT INTO items VALUES ('open')")
    ground.after_work()
    log.flush()
    assert items(MemoryGround(KEY, log=log.crash())) == ["before"]


async def test_a_commit_that_changes_nothing_has_nothing_to_wait_for() -> None:
    log = MemoryLog()
    log.hold()
    ground = ground_with_table(log)
    log.flush()
    commit(ground, "DELETE FROM items")
    assert ground.bookmark.txid == ground.durable_txid


async def test_a_refused_commit_leaves_the_state_before() -> None:
    log = MemoryLog()
    log.hold()
    ground = ground_with_table(log)
    add(ground, "a")
    with pytest.raises(ConstraintError):
        add(ground, "a")
    ground.after_work()
    log.flush()
    assert items(MemoryGround(KEY, log=log.crash())) == ["a"]


async def test_a_failed_flush_breaks_the_objects_that_waited_for_it_and_no_other() -> None:
    log = MemoryLog()
    log.hold()
    broken: list[MemoryGround] = []
    ground = MemoryGround(KEY, log=log, on_broken=broken.append)
    commit(ground, "CREATE TABLE items (value TEXT)")
    other = MemoryGround(OTHER, log=log, on_broken=broken.append)
    told: list[DosqlError | None] = []
    ground.on_durable = lambda: told.append(ground.broken)
    waiting = asyncio.ensure_future(ground.durable(ground.bookmark.txid))
    await asyncio.sleep(0)
    log.fail(UnavailableError("The commit failed.", code="commit_failed"))
    with pytest.raises(UnavailableError, match="The commit failed"):
        await waiting
    with pytest.raises(UnavailableError):
        ground.check_open()
    assert broken == [ground]
    assert told == [ground.broken]
    other.check_open()
    log.flush()
    assert KEY not in log.images


async def test_broken_is_final() -> None:
    ground = ground_with_table()
    ground.break_(ObjectResetError("first"))
    ground.break_(UnavailableError("second"))
    await asyncio.sleep(0)
    assert ground.durable_txid == 0
    with pytest.raises(ObjectResetError, match="first"):
        await ground.durable(1)


async def test_a_closed_ground_says_so_and_its_image_wakes_again() -> None:
    ground = ground_with_table()
    add(ground, "a")
    await ground.durable(ground.bookmark.txid)
    ground.close()
    with pytest.raises(InstanceClosed):
        ground.check_open()
    again = MemoryGround(KEY, log=ground.log)
    assert items(again) == ["a"]
    add(again, "b")
    await again.durable(again.bookmark.txid)
    assert (again.durable_txid, items(MemoryGround(KEY, log=ground.log))) == (2, ["a", "b"])


async def test_work_on_a_thread_runs_on_the_loop_after_what_is_ready() -> None:
    ground = ground_with_table()
    order: list[str] = []
    asyncio.get_running_loop().call_soon(order.append, "ready before")
    await ground.run_on_thread(lambda db: order.append("work"), 1.0)
    assert order == ["ready before", "work"]
