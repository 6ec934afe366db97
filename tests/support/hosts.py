"""A host in this process, and the statements tests run on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dosql.host.host import Host, HostSettings
from dosql.host.tenant import Done, Tenant
from dosql.log.disk import Disk
from dosql.objects.app import App
from dosql.objects.idempotency import Idempotency
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import Migration

CREATE = "CREATE TABLE items(id INTEGER PRIMARY KEY, value TEXT UNIQUE)"


def settings(data_dir: Path, **changes: Any) -> HostSettings:
    """Small limits and no migrations, unless said otherwise."""
    return HostSettings(data_dir, **changes)


@asynccontextmanager
async def running_host(
    data_dir: Path,
    *,
    app: App | None = None,
    disk: Disk | None = None,
    vfs: str | None = None,
    **changes: Any,
) -> AsyncIterator[Host]:
    """A started host, closed cleanly at the end."""
    host = await Host.start(settings(data_dir, **changes), disk=disk, vfs=vfs, app=app)
    try:
        yield host
    finally:
        await host.close()


def work(sql: str, params: Sequence[Any] = ()) -> Any:
    """A unit of work that answers JSON: rows, or the number of changes."""

    def run(db: Database) -> bytes:
        if sql.lstrip().upper().startswith(("SELECT", "PRAGMA", "WITH")):
            return json.dumps(db.query(sql, list(params)).rows).encode()
        return json.dumps(db.run(sql, list(params)).changes).encode()

    return run


async def execute(tenant: Tenant, sql: str, *params: Any, key: str | None = None) -> Any:
    """Run one statement as an event and return its decoded answer."""
    done = await call(tenant, sql, *params, key=key)
    return json.loads(done.body)


async def call(tenant: Tenant, sql: str, *params: Any, key: str | None = None) -> Done:
    """`execute` with all of the outcome."""
    idempotency = None if key is None else Idempotency(key, repr((sql, params)).encode())
    return await tenant.call(work(sql, params), idempotency=idempotency)


async def tenant_with_items(host: Host, name: str = "acme") -> Tenant:
    """A tenant with an empty table."""
    tenant = await host.tenants.ensure(name)
    await execute(tenant, CREATE)
    return tenant


def migration(version: int, sql: str) -> Migration:
    """A migration made by a test."""
    return Migration(version, f"{version:03d}_test", sql, f"checksum-{version}-{sql}")


async def crashed(host: Host) -> None:
    """End the host as a kill does: nothing is checkpointed, nothing is said to the log."""
    await host.node.maintenance.stop()
    if host.cold is not None:
        await host.cold.close()
    host.node.commits.close()
    for instance in host.node.awake.all():
        instance.close()
    host.node.log.close()
    host.node.directory.release()


async def until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Return as soon as ``condition`` holds; TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for sends no event
            await asyncio.sleep(0.01)
