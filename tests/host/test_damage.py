"""Damaged bytes are noticed, and never served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dosql.errors import (
    CorruptError,
)
from dosql.host.host import Host
from tests.support.hosts import (
    crashed,
    execute,
    running_host,
    settings,
    tenant_with_items,
)


async def test_a_damaged_batch_condemns_its_object_and_no_other(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path))
    acme = await tenant_with_items(host, "acme")
    globex = await tenant_with_items(host, "globex")
    await execute(acme, "INSERT INTO items(value) VALUES ('needle-in-acme')")
    await execute(globex, "INSERT INTO items(value) VALUES ('b')")
    await crashed(host)
    segment = sorted((tmp_path / "log").glob("*.log"))[-1]
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"needle-in-acme", b"needle-in-acmE"))
    async with running_host(tmp_path) as host:
        assert await execute(host.tenants.get("globex"), "SELECT value FROM items") == [["b"]]
        with pytest.raises(CorruptError) as refusal:
            await execute(host.tenants.get("acme"), "SELECT value FROM items")
        assert refusal.value.code == "object_corrupt"
    assert list((tmp_path / "log").glob("*.damaged")), "kept for the operator"


async def test_a_start_without_the_log_is_refused(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        await tenant_with_items(host)
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(CorruptError) as refusal:
        await Host.start(settings(tmp_path))
    assert refusal.value.code == "log_damaged"
