"""Hosts with a bucket: kills, gates before the bucket, and what the bucket holds."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import apsw
import pytest

from dosql.durability import Durability
from dosql.host.catalog import CATALOG_KEY
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.host.tenant import Tenant
from dosql.log.records import ObjectKey
from dosql.log.redo import database_path
from dosql.objects.app import App
from dosql.replica.bucket import NO_METADATA, Bucket, ObjectInfo
from dosql.replica.bucket_errors import BucketUnavailableError
from dosql.replica.replica import Replica
from tests.support.buckets import WrappedBucket
from tests.support.hosts import execute, settings

PREFIX = "objects/"
CATALOG_PREFIX = f"{PREFIX}{CATALOG_KEY.id.hex()}-"


def fault_seed() -> int:
    """From DOSQL_FAULT_SEED, or a new one; print it."""
    return int(os.environ.get("DOSQL_FAULT_SEED", random.SystemRandom().randrange(2**32)))


def lose_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes are refused at once after a failure, and replies wait half a second: for as long as
    nothing is to succeed, on a machine of whatever speed."""
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_REFUSE_AFTER_S", 0.0)
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_RETRY_S_MAX", 0.05)
    monkeypatch.setattr("dosql.replica.shipper.REPLICA_RETRY_S_MAX", 0.05)
    monkeypatch.setattr("dosql.objects.instance.REPLICA_WAIT_S", 0.5)
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_WAIT_S", 0.5)
    monkeypatch.setattr("dosql.host.cold_tier.REPLICA_DRAIN_S", 0.2)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lose_patience` from the start."""
    lose_patience(monkeypatch)


async def start_host(
    data_dir: Path,
    bucket: Bucket,
    durability: Durability = "local",
    *,
    app: App | None = None,
    **changes: Any,
) -> Host:
    """A host that copies to the bucket."""
    cold = ColdTierSettings(bucket, prefix=PREFIX, durability=durability)
    return await Host.start(settings(data_dir, cold=cold, **changes), app=app)


@asynccontextmanager
async def replicated_host(
    data_dir: Path, bucket: Bucket, durability: Durability = "local", **changes: Any
) -> AsyncIterator[Host]:
    """`start_host`, closed cleanly at the end."""
    host = await start_host(data_dir, bucket, durability, **changes)
    try:
        yield host
    finally:
        await host.close()


async def killed(host: Host) -> None:
    """End the host as a kill does: nothing is checkpointed, noted or sent any more. A request to
    the bucket that is under way may still arrive, as it does in life."""
    await host.node.maintenance.stop()
    host.node.commits.close()
    if host.cold is not None:
        await host.cold.close()
    for instance in host.node.awake.all():
        instance.close()
    host.node.log.close()
    host.node.workers.shutdown()
    host.node.file_threads.close()
    host.node.directory.release()


def key_of(host: Host, name: str = "acme") -> ObjectKey:
    """Of a tenant."""
    return host.tenants.entry(name).key


def replica_of(host: Host, key: ObjectKey) -> Replica:
    """Its files in the bucket."""
    assert host.cold is not None
    return host.cold.shipper.replica(key)


def file_of(data_dir: Path, key: ObjectKey) -> Path:
    """Its database file."""
    return database_path(data_dir / "objects", key)


def shipped_txid(host: Host, key: ObjectKey) -> int:
    """The newest batch that the bucket has, as the bucket says it."""
    head = replica_of(host, key).head()
    return 0 if head is None else head.txid


async def drained(host: Host, seconds: float = 20) -> None:
    """Return when the bucket has everything; TimeoutError if it never does."""
    assert host.cold is not None
    async with asyncio.timeout(seconds):
        while await host.cold.shipper.drain(seconds):  # noqa: ASYNC110 - it waits itself
            await asyncio.sleep(0.01)


def restored(replica: Replica, target: Path, txid: int | None = None) -> bytes:
    """What our own restore makes of the replica."""
    with target.open("w+b") as out:
        replica.write_image(out, txid)
    return target.read_bytes()


def rows_of(database: Path, sql: str = "SELECT value FROM items ORDER BY id") -> list[Any]:
    """First column of a query on a database file."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [row[0] for row in connection.execute(sql)]
    finally:
        connection.close()


async def add(tenant: Tenant, *values: str) -> None:
    """Insert rows into the table of `tests.support.hosts.CREATE`."""
    for value in values:
        await execute(tenant, "INSERT INTO items(value) VALUES (?)", value)


async def values(tenant: Tenant) -> list[str]:
    """The rows of that table."""
    rows = await execute(tenant, "SELECT value FROM items ORDER BY id")
    return [row[0] if isinstance(row, list) else row["value"] for row in rows]


class SwitchedBucket(WrappedBucket):
    """Can be taken away, and can hold writes until they are let through."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self.away = False
        """Every request fails, and nothing happens."""
        self.puts: list[str] = []
        """Keys whose writing began, in order."""
        self.held: list[str] = []
        """Those of them that began since `hold`."""
        self._open = threading.Event()
        self._open.set()

    def hold(self) -> None:
        """Writes wait from now on."""
        self.held = []
        self._open.clear()

    def let_go(self) -> None:
        """They go on."""
        self._open.set()

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        self._check()
        self.puts.append(key)
        if not self._open.is_set():
            self.held.append(key)
        assert self._open.wait(60), "the test never let the write through"
        self._check()
        return super().put(key, data, if_absent=if_absent, if_match=if_match, metadata=metadata)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._check()
        return super().get(key, start=start, length=length)

    def open(self, key: str) -> BinaryIO:
        self._check()
        return super().open(key)

    def head(self, key: str) -> ObjectInfo | None:
        self._check()
        return super().head(key)

    def delete(self, keys: Iterable[str]) -> None:
        self._check()
        super().delete(keys)

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        self._check()
        return super().list(prefix, after=after, limit=limit)

    def _check(self) -> None:
        if self.away:
            raise BucketUnavailableError("injected: the bucket is away")
