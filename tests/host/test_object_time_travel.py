"""Bookmarks and restores from within an object: rows 48 to 51 of Cloudflare's model."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dosql import App, DurableObject
from dosql.errors import DosqlError, InvalidRequestError, NotFoundError, ObjectResetError
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.replica.local_bucket import LocalBucket
from tests.support.hosts import crashed, running_host, settings, until

app = App()
rung: list[str] = []


@app.durable_object
class Diary(DurableObject):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS lines(id INTEGER PRIMARY KEY, text)")

    async def add(self, text: str) -> str:
        self.ctx.storage.sql.exec("INSERT INTO lines(text) VALUES (?)", text)
        self.ctx.storage.kv.put("last", text)
        return str(await self.ctx.storage.get_current_bookmark())

    async def lines(self) -> list[str]:
        return [row["text"] for row in self.ctx.storage.sql.exec("SELECT text FROM lines")]

    async def last(self) -> Any:
        return self.ctx.storage.kv.get("last")

    async def tables(self) -> int:
        rows = self.ctx.storage.sql.exec("SELECT count(*) AS n FROM sqlite_schema")
        return int(rows.one()["n"])

    async def at(self, ms: int) -> str:
        return str(await self.ctx.storage.get_bookmark_for_time(ms))

    async def order(self, bookmark: str) -> str:
        return str(await self.ctx.storage.on_next_session_restore_bookmark(bookmark))

    async def go_back(self, bookmark: str) -> None:
        await self.ctx.storage.on_next_session_restore_bookmark(bookmark)
        self.ctx.abort("going back")

    async def ring_at(self, ms: int | None) -> None:
        if ms is None:
            await self.ctx.storage.delete_alarm()
        else:
            await self.ctx.storage.set_alarm(ms)

    async def alarm(self, info: Any) -> None:
        rung.append("rang")


def cold(tmp_path: Path) -> ColdTierSettings:
    return ColdTierSettings(LocalBucket(tmp_path / "bucket"), directory=True)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with running_host(tmp_path / "data", app=app, cold=cold(tmp_path)) as running:
        yield running


def diary(host: Host, name: str = "mine") -> Any:
    return host.objects.namespace("diary").get_by_name(name)


async def sleep(host: Host) -> None:
    """Every object leaves memory."""
    async with host.objects._lives.emptied(5):
        pass


async def test_row_48_bookmarks_sort_in_the_order_of_the_writes(host: Host) -> None:
    stub = diary(host)
    marks = [await stub.add(f"line {number}") for number in range(5)]
    assert marks == sorted(set(marks))


async def test_row_49_a_time_leads_to_the_newest_state_that_is_not_younger(host: Host) -> None:
    stub = diary(host)
    first = await stub.add("one")
    between = host._clock.now_ms()
    await asyncio.sleep(0.005)
    await stub.add("two")
    assert await stub.at(between) == first
    with pytest.raises(NotFoundError) as caught:
        await stub.at(1_000)
    assert caught.value.code == "restore_point_not_found"


async def test_row_50_the_next_wake_restores_and_the_result_takes_it_back(host: Host) -> None:
    stub = diary(host)
    mark = await stub.add("one")
    await stub.add("two")
    undo = await stub.order(mark)
    assert await stub.lines() == ["one", "two"], "not before the next wake"
    await sleep(host)
    assert await stub.lines() == ["one"]
    assert await stub.last() == "one"
    await sleep(host)
    assert await stub.lines() == ["one"], "once"
    await stub.order(undo)
    await sleep(host)
    assert await stub.lines() == ["one", "two"]
    await sleep(host)
    assert await stub.lines() == ["one", "two"], "the order in the old state is not done again"


async def test_row_50_abort_restores_at_once(host: Host) -> None:
    stub = diary(host)
    mark = await stub.add("one")
    await stub.add("two")
    with pytest.raises(ObjectResetError):
        await stub.go_back(mark)
    assert await stub.lines() == ["one"]
    assert await stub.add("three") > mark
    assert await stub.lines() == ["one", "three"]


@pytest.mark.parametrize("lose_data", [False, True])
async def test_row_50_the_order_outlives_a_crash(tmp_path: Path, lose_data: bool) -> None:
    host = await Host.start(settings(tmp_path / "data", cold=cold(tmp_path)), app=app)
    stub = diary(host)
    mark = await stub.add("one")
    await stub.add("two")
    await stub.order(mark)
    assert host.cold is not None
    if lose_data:
        await host.cold.drain()
    await crashed(host)
    if lose_data:
        shutil.rmtree(tmp_path / "data")
    async with running_host(tmp_path / "data", app=app, cold=cold(tmp_path)) as again:
        assert await diary(again).lines() == ["one"]


async def test_row_50_what_was_restored_outlives_a_crash(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path / "data", cold=cold(tmp_path)), app=app)
    stub = diary(host)
    mark = await stub.add("one")
    await stub.add("two")
    with pytest.raises(ObjectResetError):
        await stub.go_back(mark)
    assert await stub.lines() == ["one"]
    await crashed(host)
    async with running_host(tmp_path / "data", app=app, cold=cold(tmp_path)) as again:
        assert await diary(again).lines() == ["one"]


async def test_row_50_only_what_can_be_restored_is_taken(host: Host) -> None:
    stub = diary(host)
    mark = await stub.add("one")
    other = await diary(host, "other").add("else")
    later = f"{int(mark[:16], 16) + 100:016x}{mark[16:]}"
    for wrong, kind in ((other, NotFoundError), (later, NotFoundError), ("x", DosqlError)):
        with pytest.raises(kind):
            await stub.order(wrong)
    await sleep(host)
    assert await stub.lines() == ["one"]


async def test_alarms_of_the_restored_state_ring(host: Host) -> None:
    """Also if nothing in the present state waits for one."""
    rung.clear()
    stub = diary(host)
    await stub.ring_at(host._clock.now_ms() + 1_500)
    mark = await stub.add("one")
    await stub.ring_at(None)
    with pytest.raises(ObjectResetError):
        await stub.go_back(mark)
    assert await stub.lines() == ["one"]
    await until(lambda: rung == ["rang"])


async def test_row_51_a_state_for_another_object_is_a_branch_of_a_tenant(host: Host) -> None:
    """What Cloudflare drafts as snapshot() of one object for another exists for tenants: a branch,
    whose making does not depend on the size."""
    await host.tenants.create("acme")
    assert (await host.past.branches.create("acme", "copy")).parent == "acme"


async def test_without_a_bucket_an_object_is_told_so(tmp_path: Path) -> None:
    async with running_host(tmp_path / "data", app=app) as host:
        stub = diary(host)
        mark = await stub.add("one")
        for call in (stub.order(mark), stub.at(5)):
            with pytest.raises(InvalidRequestError) as caught:
                await call
            assert caught.value.code == "no_bucket"
