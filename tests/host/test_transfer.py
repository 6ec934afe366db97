"""Whole tenants: gone, out and in."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dosql.errors import (
    InvalidRequestError,
    NotFoundError,
)
from dosql.host.host import Host
from tests.support.hosts import (
    call,
    crashed,
    execute,
    running_host,
    settings,
    tenant_with_items,
)


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
