"""What the admin token may do, from Python."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dosql.client import AsyncClient, AsyncTenant, Client
from dosql.errors import (
    AuthenticationError,
    ConflictError,
    DosqlError,
    ForbiddenError,
    NotFoundError,
)
from tests.support.server import ServerProcess


async def test_tenants_are_created_listed_and_deleted(async_client: AsyncClient, name: str) -> None:
    created = await async_client.admin.tenants.create(name)
    assert created.name == name
    with pytest.raises(ConflictError) as caught:
        await async_client.admin.tenants.create(name)
    assert caught.value.code == "tenant_exists"
    assert (await async_client.admin.tenants.get(name)).id == created.id
    await async_client.admin.tenants.delete(name)
    with pytest.raises(NotFoundError) as missing:
        await async_client.admin.tenants.get(name)
    assert missing.value.code == "tenant_not_found"


async def test_the_list_goes_through_all_pages_in_name_order(async_client: AsyncClient) -> None:
    names = [f"page-{letter}" for letter in "dbeac"]
    for name in names:
        await async_client.admin.tenants.create(name)
    listed = [t.name async for t in async_client.admin.tenants.list("page-", page_size=2)]
    assert listed == sorted(names)


async def test_an_export_is_a_whole_database(
    async_client: AsyncClient, acme: AsyncTenant, tmp_path: Path
) -> None:
    await acme.run("INSERT INTO people (name) VALUES ('Ada')")
    target = tmp_path / "acme.sqlite"
    target.write_text("an older file")
    seen: list[int] = []
    size = await async_client.admin.tenants.export(
        acme.name, target, lambda done, total: seen.append(done)
    )
    assert target.stat().st_size == size == seen[-1]
    assert list(tmp_path.iterdir()) == [target]
    connection = sqlite3.connect(target)
    assert connection.execute("SELECT name FROM people").fetchall() == [("Ada",)]
    connection.close()


async def test_a_failed_export_leaves_the_older_file(
    async_client: AsyncClient, name: str, tmp_path: Path
) -> None:
    target = tmp_path / "acme.sqlite"
    target.write_text("an older file")
    with pytest.raises(NotFoundError):
        await async_client.admin.tenants.export(name, target)
    assert target.read_text() == "an older file"
    assert list(tmp_path.iterdir()) == [target]


async def test_an_import_replaces_the_database(
    async_client: AsyncClient, acme: AsyncTenant, tmp_path: Path
) -> None:
    source = tmp_path / "other.sqlite"
    connection = sqlite3.connect(source)
    connection.execute("CREATE TABLE fruit (name TEXT)")
    connection.execute("INSERT INTO fruit VALUES ('apple')")
    connection.commit()
    connection.close()
    seen: list[tuple[int, int | None]] = []
    info = await async_client.admin.tenants.import_(
        acme.name, source, lambda done, total: seen.append((done, total))
    )
    size = source.stat().st_size
    assert info.name == acme.name
    assert seen[-1] == (size, size)
    assert await acme.query("SELECT * FROM fruit") == [{"name": "apple"}]


async def test_a_file_that_is_no_database_changes_nothing(
    async_client: AsyncClient, acme: AsyncTenant, tmp_path: Path
) -> None:
    source = tmp_path / "nonsense.sqlite"
    source.write_bytes(b"not a database" * 1000)
    with pytest.raises(DosqlError) as caught:
        await async_client.admin.tenants.import_(acme.name, source)
    assert caught.value.status == 400
    assert await acme.query("SELECT * FROM people") == []


async def test_a_token_opens_one_tenant_until_it_is_revoked(
    shared_server: ServerProcess, async_client: AsyncClient, acme: AsyncTenant
) -> None:
    created = await async_client.admin.tokens.create(
        acme.name, access="read-only", expires_in_s=3600
    )
    info = await async_client.admin.tokens.get(created.id)
    assert (info.tenant, info.access, info.expired) == (acme.name, "read-only", False)
    async with AsyncClient(shared_server.url, token=created.token) as reader:
        assert await reader.tenant(acme.name).query("SELECT 1 AS one") == [{"one": 1}]
        with pytest.raises(ForbiddenError) as caught:
            await reader.tenant(acme.name).run("DELETE FROM people")
        assert caught.value.code == "read_only"
        await async_client.admin.tokens.revoke(created.id)
        with pytest.raises(AuthenticationError):
            await reader.tenant(acme.name).query("SELECT 1")
    with pytest.raises(NotFoundError) as missing:
        await async_client.admin.tokens.revoke(created.id)
    assert missing.value.code == "token_not_found"


async def test_migrations_are_reported_and_run(
    async_client: AsyncClient, acme: AsyncTenant
) -> None:
    report = await async_client.admin.migrations.run(acme.name, dry_run=True)
    assert [state.tenant for state in report.tenants] == [acme.name]
    report = await async_client.admin.migrations.run(acme.name)
    assert report.tenants[0].pending == []
    assert report.tenants[0].version == len(report.available)
    status = await async_client.admin.migrations.status()
    assert acme.name in {state.tenant for state in status.tenants}


def test_the_synchronous_client_does_the_same(client: Client, name: str, tmp_path: Path) -> None:
    client.admin.tenants.create(name)
    assert [tenant.name for tenant in client.admin.tenants.list(name)] == [name]
    size = client.admin.tenants.export(name, tmp_path / "a.sqlite")
    assert (tmp_path / "a.sqlite").stat().st_size == size
    assert client.admin.tenants.import_(f"{name}-2", tmp_path / "a.sqlite").name == f"{name}-2"
