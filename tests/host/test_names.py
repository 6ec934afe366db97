"""Names and ids: one object per name, found without touching disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dosql.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from dosql.host.host import Host
from tests.support.hosts import (
    running_host,
    settings,
)


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
