"""Reading the past of a tenant, over a real host and a bucket in a directory."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dosql.bookmarks import Bookmark
from dosql.clock import iso_from_ms
from dosql.errors import ForbiddenError, InvalidRequestError, NotFoundError
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.host.tenant import Tenant
from dosql.replica.local_bucket import LocalBucket
from tests.support.hosts import (
    call,
    crashed,
    execute,
    running_host,
    settings,
    tenant_with_items,
    work,
)


def cold(tmp_path: Path, **changes: Any) -> ColdTierSettings:
    return ColdTierSettings(LocalBucket(tmp_path / "bucket"), directory=True, **changes)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as running:
        yield running


async def rows_at(tenant: Tenant, at: str, sql: str = "SELECT value FROM items ORDER BY id") -> Any:
    done = await tenant.call_at(at, work(sql))
    return [row[0] for row in json.loads(done.body)]


async def insert(tenant: Tenant, value: str) -> Bookmark:
    return (await call(tenant, "INSERT INTO items(value) VALUES (?)", value)).bookmark


async def test_a_bookmark_reads_the_state_that_the_reply_with_it_reflected(host: Host) -> None:
    tenant = await tenant_with_items(host)
    marks = [await insert(tenant, f"v{number}") for number in range(5)]
    for number, mark in enumerate(marks):
        done = await tenant.call_at(str(mark), work("SELECT count(*) FROM items"))
        assert json.loads(done.body) == [[number + 1]]
        assert done.bookmark == mark


async def test_the_newest_bookmark_can_be_read_at_once(host: Host) -> None:
    tenant = await tenant_with_items(host)
    for number in range(20):
        mark = await insert(tenant, f"v{number}")
        assert len(await rows_at(tenant, str(mark))) == number + 1


async def test_a_time_reads_the_newest_state_that_is_not_younger(host: Host) -> None:
    tenant = await tenant_with_items(host)
    await insert(tenant, "old")
    between = tenant._tenants.clock.now_ms()
    await asyncio.sleep(0.005)
    await insert(tenant, "new")
    assert await rows_at(tenant, iso_from_ms(between)) == ["old"]


async def test_a_time_to_come_is_now(host: Host) -> None:
    tenant = await tenant_with_items(host)
    await insert(tenant, "one")
    assert await rows_at(tenant, "2999-01-01T00:00:00Z") == ["one"]


@pytest.mark.parametrize("at", ["2026-01-31T12:00:00", "yesterday", "", "2026-13-01T00:00:00Z"])
async def test_a_time_without_an_offset_and_nonsense_are_refused(host: Host, at: str) -> None:
    tenant = await tenant_with_items(host)
    with pytest.raises(InvalidRequestError) as caught:
        await rows_at(tenant, at)
    assert caught.value.code == "invalid_time"


async def test_what_is_not_kept_or_has_yet_to_come_is_not_found(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = await insert(tenant, "one")
    later = Bookmark(mark.txid + 1000, mark.incarnation)
    other_life = Bookmark(mark.txid, mark.incarnation ^ 1)
    for at in ("1999-01-01T00:00:00Z", str(later), str(other_life)):
        with pytest.raises(NotFoundError) as caught:
            await rows_at(tenant, at)
        assert caught.value.code == "restore_point_not_found"


async def test_the_past_cannot_be_written(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = str(await insert(tenant, "one"))
    for sql in ("INSERT INTO items(value) VALUES ('x')", "DROP TABLE items", "VACUUM"):
        with pytest.raises((ForbiddenError, InvalidRequestError)):
            await tenant.call_at(mark, work(sql))
    assert await rows_at(tenant, mark) == ["one"]


async def test_a_state_is_built_once_for_all_who_ask_at_a_time(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = str(await insert(tenant, "one"))
    answers = await asyncio.gather(*(rows_at(tenant, mark) for _ in range(10)))
    assert answers == [["one"]] * 10
    assert host.past.travel.states.built == 1


async def test_states_beyond_the_bounds_are_removed_the_longest_unused_first(host: Host) -> None:
    tenant = await tenant_with_items(host)
    marks = [await insert(tenant, f"v{number}") for number in range(6)]
    states = host.past.travel.states
    states._count_max = 3
    for mark in marks:
        await rows_at(tenant, str(mark))
    assert len(states) == 3
    assert len(list(host.node.directory.states.iterdir())) == 3
    assert states.holds(tenant.key, marks[-1].txid)
    assert not states.holds(tenant.key, marks[0].txid)
    assert len(await rows_at(tenant, str(marks[0]))) == 1


async def test_the_states_of_a_deleted_tenant_are_removed(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = str(await insert(tenant, "one"))
    await rows_at(tenant, mark)
    await host.tenants.delete("acme")
    assert not list(host.node.directory.states.iterdir())
    again = await host.tenants.ensure("acme")
    with pytest.raises(NotFoundError):
        await rows_at(again, mark)


async def test_without_a_bucket_there_is_no_past(tmp_path: Path) -> None:
    async with running_host(tmp_path / "data") as host:
        tenant = await tenant_with_items(host)
        with pytest.raises(InvalidRequestError) as caught:
            await rows_at(tenant, "2026-01-31T12:00:00Z")
        assert caught.value.code == "no_bucket"


async def test_the_past_outlives_a_crash_and_the_loss_of_the_machine(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path / "data", cold=cold(tmp_path)))
    tenant = await tenant_with_items(host)
    mark = str(await insert(tenant, "one"))
    await insert(tenant, "two")
    assert host.cold is not None
    await host.cold.drain()
    await crashed(host)
    shutil.rmtree(tmp_path / "data")
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as again:
        tenant = again.tenants.get("acme")
        assert await rows_at(tenant, mark) == ["one"]
        assert await execute(tenant, "SELECT count(*) FROM items") == [[2]]
