"""The catalog: names, ids and alarms of all objects, and how an older one is brought up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from dosql.clock import SystemClock
from dosql.host.alarm_index import AlarmIndex, DueAlarm
from dosql.host.catalog import (
    CATALOG_MIGRATIONS,
    Catalog,
    Entry,
    ObjectEntry,
    Use,
)
from dosql.host.host import Host
from dosql.log.records import ObjectKey
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import apply_migrations
from dosql.wire.values import Params, SqlValue
from tests.support.hosts import crashed, running_host, settings


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with running_host(tmp_path) as host:
        yield host


@pytest.fixture
def rooms(host: Host) -> Catalog:
    return Catalog("room", host.node.catalog)


@pytest.fixture
def index(host: Host) -> AlarmIndex:
    return AlarmIndex(host.node.catalog)


def key(number: int, incarnation: int = 1) -> ObjectKey:
    return ObjectKey(number.to_bytes(32), incarnation)


def named(name: str, number: int, alarm_at_ms: int | None = None) -> Entry:
    return Entry(name, key(number), 1, 2, alarm_at_ms=alarm_at_ms)


def nameless(number: int, alarm_at_ms: int | None = None) -> ObjectEntry:
    return ObjectEntry(None, key(number), 1, 2, alarm_at_ms=alarm_at_ms)


# --- names and ids --------------------------------------------------------------------------------


async def test_objects_are_found_by_id_and_by_name(rooms: Catalog) -> None:
    await rooms.put(named("lobby", 1))
    await rooms.put(nameless(2))
    await rooms.put(nameless(3))
    assert rooms.find("lobby") == rooms.find_by_id(key(1).id) == named("lobby", 1)
    assert rooms.find_by_id(key(2).id) == nameless(2)
    assert rooms.find_by_id(key(4).id) is None
    assert rooms.find("other") is None


async def test_namespaces_do_not_see_each_other(host: Host, rooms: Catalog) -> None:
    other = Catalog("counter", host.node.catalog)
    await rooms.put(named("a", 1))
    await other.put(named("a", 1))
    other.delete_nowait("a")
    assert rooms.find("a") is not None and other.find_by_id(key(1).id) is None


async def test_pages_hold_named_objects_only(rooms: Catalog) -> None:
    await rooms.put(nameless(1))
    for number, name in enumerate(["a/1", "a/\U0010ffff!", "a\ud7ff", "b", "A"], start=2):
        await rooms.put(named(name, number))
    assert [each.name for each in rooms.page("", "", 9)] == [
        "A",
        "a/1",
        "a/\U0010ffff!",
        "a\ud7ff",
        "b",
    ]
    assert [each.name for each in rooms.page("a/", "", 9)] == ["a/1", "a/\U0010ffff!"]
    assert [each.name for each in rooms.page("a\ud7ff", "", 9)] == ["a\ud7ff"]
    assert [each.name for each in rooms.page("\U0010ffff", "", 9)] == []
    assert [each.name for each in rooms.page("a", "a/1", 1)] == ["a/\U0010ffff!"]


async def test_an_object_without_a_name_can_be_deleted(rooms: Catalog) -> None:
    await rooms.put(nameless(1, alarm_at_ms=5))
    await rooms.put(named("a", 2))
    rooms.delete_id_nowait(key(1).id)
    rooms.delete_id_nowait(key(2).id)
    assert rooms.find_by_id(key(1).id) is None and rooms.find("a") is None


async def test_use_is_noted_for_the_life_it_was_of(rooms: Catalog) -> None:
    await rooms.put(nameless(1))
    rooms.record_use_by_id([(key(1), Use(7, 8, 9)), (key(1, incarnation=2), Use(0, 0, 0))])
    expected = replace(nameless(1), last_used_at_ms=7, size_bytes=8, schema_version=9)
    assert rooms.find_by_id(key(1).id) == expected


async def test_all_namespaces_are_listed(host: Host, rooms: Catalog) -> None:
    assert rooms.namespaces() == []
    await host.tenants.ensure("acme")
    await rooms.put(nameless(1))
    await rooms.put(nameless(2))
    assert rooms.namespaces() == ["room", "tenant-database"]


# --- alarms ---------------------------------------------------------------------------------------


async def test_the_index_gives_what_is_due_the_longest_overdue_first(
    host: Host, rooms: Catalog, index: AlarmIndex
) -> None:
    assert index.earliest() is None and index.due(10**15, 9) == []
    await Catalog("counter", host.node.catalog).put(named("c", 1, alarm_at_ms=20))
    await rooms.put(named("a", 1, alarm_at_ms=30))
    await rooms.put(nameless(2, alarm_at_ms=10))
    await rooms.put(nameless(3))
    assert index.earliest() == 10
    assert [index.earliest(after_ms) for after_ms in (9, 10, 29, 30)] == [10, 20, 30, None]
    assert index.due(9, 9) == []
    assert [each.at_ms for each in index.due(29, 9)] == [10, 20]
    first, second, third = index.due(30, 9)
    assert (first.namespace, first.key, first.name) == ("room", key(2), None)
    assert (second.namespace, second.name) == ("counter", "c")
    assert (third.namespace, third.name) == ("room", "a")


async def test_due_objects_come_in_pages_even_at_one_time(
    rooms: Catalog, index: AlarmIndex
) -> None:
    for number in range(5):
        await rooms.put(nameless(number, alarm_at_ms=7))
    seen = page = index.due(7, 2)
    while page := index.due(7, 2, page[-1]):
        seen = seen + page
    assert [each.key for each in seen] == [key(number) for number in range(5)]


async def test_an_alarm_is_noted_for_the_life_it_is_of(rooms: Catalog, index: AlarmIndex) -> None:
    await rooms.put(nameless(1))
    rooms.set_alarm_nowait(key(1, incarnation=2), 5)
    assert index.earliest() is None
    rooms.set_alarm_nowait(key(1), 5)
    assert index.earliest() == 5
    rooms.set_alarm_nowait(key(1), None)
    assert index.earliest() is None


async def test_the_index_outlives_a_crash(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path))
    rooms = Catalog("room", host.node.catalog)
    await rooms.put(nameless(1))
    rooms.set_alarm_nowait(key(1), 5)
    await rooms.durable()
    await crashed(host)
    async with running_host(tmp_path) as host:
        assert AlarmIndex(host.node.catalog).earliest() == 5


async def test_the_questions_of_the_clock_use_the_index_alone(host: Host) -> None:
    """They are asked at every alarm, however many objects sleep without one."""
    asked: list[str] = []

    class Asked(AlarmIndex):
        def _read(self, sql: str, params: Params) -> list[tuple[SqlValue, ...]]:
            asked.append(sql)
            return super()._read(sql, params)

    index = Asked(host.node.catalog)
    index.earliest()
    index.due(5, 9)
    index.due(5, 9, DueAlarm(1, "room", key(1), None))
    assert len(asked) == 3
    db = host.node.catalog().db
    for sql in asked:
        params = [1] * sql.count("?")
        plan = [str(row[3]) for row in db.internal_query(f"EXPLAIN QUERY PLAN {sql}", params)]
        assert len(plan) == 1 and "objects_by_alarm" in plan[0], plan


# --- an older catalog -----------------------------------------------------------------------------


async def test_a_catalog_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """Its objects keep all they have; what was applied once is never changed."""
    path = tmp_path / "catalog.sqlite"
    db = Database(str(path), clock=SystemClock())
    apply_migrations(db, CATALOG_MIGRATIONS[:1], now_ms=0)
    db.internal_run(
        "INSERT INTO objects VALUES ('tenant-database', 'acme', ?, 3, 4, 5, 6, 7)", (key(1).id,)
    )
    assert len(apply_migrations(db, CATALOG_MIGRATIONS, now_ms=0)) == 2
    assert db.internal_query("SELECT * FROM objects") == [
        ("tenant-database", key(1).id, "acme", 3, 4, 5, 6, 7, None)
    ]
    db.close()
    assert CATALOG_MIGRATIONS[0].checksum == (
        "38612c5d2fd997491ea4cc2e24d60b6eadf1955abcb1dae00241a0025e06c1dd"
    )
