"""A wiped database stays wiped, whatever happens to the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from dosql.host.host import Host
from dosql.sqlite.database import Database
from tests.support.hosts import crashed, execute, running_host, settings, tenant_with_items

FILL = "INSERT INTO items(value) SELECT hex(randomblob(500)) || value FROM json_each(?)"
TABLES = "SELECT name FROM sqlite_schema WHERE tbl_name NOT LIKE '@_dosql%' ESCAPE '@'"
"""Without those that the host makes for every tenant when it wakes it."""
ROWS = "[" + ", ".join(str(number) for number in range(200)) + "]"


def wipe(db: Database) -> bytes:
    db.wipe()
    return b"null"


@pytest.mark.parametrize("checkpointed", [False, True], ids=["in the log", "in the file"])
async def test_a_wipe_survives_a_kill(tmp_path: Path, checkpointed: bool) -> None:
    """Redo shortens the file to the one page that is left."""
    host = await Host.start(settings(tmp_path))
    tenant = await tenant_with_items(host)
    await execute(tenant, FILL, ROWS)
    if checkpointed:
        await host.close()
        host = await Host.start(settings(tmp_path))
        tenant = host.tenants.get("acme")
    await tenant.call(wipe)
    await crashed(host)
    async with running_host(tmp_path) as host:
        tenant = host.tenants.get("acme")
        assert await execute(tenant, TABLES) == []
        assert (await execute(tenant, "PRAGMA page_count"))[0][0] < 6
        await execute(tenant, "CREATE TABLE again (a)")
        await execute(tenant, "INSERT INTO again VALUES (1)")
    async with running_host(tmp_path) as host:
        tenant = host.tenants.get("acme")
        assert await execute(tenant, "SELECT a FROM again") == [[1]]
        assert await execute(tenant, "PRAGMA integrity_check") == [["ok"]]


async def test_what_is_written_before_and_after_a_wipe_in_one_batch_is_redone_in_order(
    tmp_path: Path,
) -> None:
    host = await Host.start(settings(tmp_path))
    tenant = await tenant_with_items(host)

    def work(db: Database) -> bytes:
        db.run(FILL, [ROWS])
        db.wipe()
        db.run("CREATE TABLE again (a)")
        db.run("INSERT INTO again VALUES (1)")
        return b"null"

    await tenant.call(work)
    await crashed(host)
    async with running_host(tmp_path) as host:
        tenant = host.tenants.get("acme")
        assert await execute(tenant, TABLES) == [["again"]]
        assert await execute(tenant, "SELECT a FROM again") == [[1]]
        assert await execute(tenant, "PRAGMA integrity_check") == [["ok"]]
