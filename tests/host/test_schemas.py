"""Migrations of many tenants."""

from __future__ import annotations

from pathlib import Path

import pytest

from dosql.errors import (
    DosqlError,
)
from dosql.wire.migrations import RunMigrations
from tests.support.hosts import (
    execute,
    migration,
    running_host,
)


async def test_tenants_behind_are_reported_and_brought_up_to_date(tmp_path: Path) -> None:
    one = (migration(1, "CREATE TABLE a(x)"),)
    two = (*one, migration(2, "CREATE TABLE b(x)"))
    async with running_host(tmp_path, migrations=one) as host:
        for name in ("acme", "globex"):
            await execute(await host.tenants.ensure(name), "SELECT * FROM a")
    async with running_host(tmp_path, migrations=two) as host:
        report = host.schemas.report()
        assert [(each.tenant, each.pending) for each in report.tenants] == [
            ("acme", ["002_test"]),
            ("globex", ["002_test"]),
        ]
        dry = await host.schemas.run(RunMigrations(dry_run=True))
        assert dry.tenants == report.tenants
        done = await host.schemas.run(RunMigrations())
        assert [each.pending for each in done.tenants] == [[], []]
        assert await execute(host.tenants.get("acme"), "SELECT * FROM b") == []


async def test_a_failing_migration_is_reported_and_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    async with running_host(tmp_path) as host:
        await execute(await host.tenants.ensure("bad"), "CREATE TABLE a(x)")
        await execute(await host.tenants.ensure("good"), "SELECT 1")
    async with running_host(tmp_path, migrations=(migration(1, "CREATE TABLE a(x)"),)) as host:
        report = await host.schemas.run(RunMigrations())
        states = {each.tenant: each for each in report.tenants}
        assert states["bad"].error is not None
        assert states["bad"].pending == ["001_test"]
        assert states["good"].pending == []
        with pytest.raises(DosqlError) as refusal:
            await execute(host.tenants.get("bad"), "SELECT 1")
        assert refusal.value.code == "migration_failed"
