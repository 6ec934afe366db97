"""A stranger's tool restores what a host wrote to S3: latest, at a TXID and at a time."""

from __future__ import annotations

import itertools
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from dosql import App, DurableObject
from dosql.clock import iso_from_ms
from dosql.host.host import Host
from dosql.log.records import ObjectKey
from dosql.replica.plan import RAW_LEVEL
from dosql.replica.s3_bucket import S3Bucket
from tests.replica.litestream import litestream
from tests.support.buckets import IMPATIENT, minio_client, new_s3_bucket, s3_credentials
from tests.support.cold import drained, fault_seed, file_of, replica_of, start_host
from tests.support.hosts import execute, migration
from tests.support.minio import MinioServer

__all__ = ["s3_credentials"]
SEED = fault_seed()
MIGRATIONS = (
    migration(1, "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT)"),
    migration(2, "CREATE INDEX notes_by_body ON notes(body); ALTER TABLE notes ADD COLUMN n"),
)

app = App()


@app.durable_object
class Shelf(DurableObject):
    def put(self, key: str, value: str) -> None:
        self.ctx.storage.kv.put(key, value)
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS log(entry)")
        self.ctx.storage.sql.exec("INSERT INTO log VALUES (?)", key)

    async def set_alarm(self, at_ms: int) -> None:
        await self.ctx.storage.set_alarm(at_ms)


class Restorer:
    """One host, its objects' files at moments, and Litestream's idea of them."""

    def __init__(self, host: Host, data: Path, scratch: Path, endpoint: str) -> None:
        self.host = host
        self._data = data
        self._scratch = scratch
        self._endpoint = endpoint
        self.states: dict[ObjectKey, dict[int, bytes]] = {}
        self.by_txid = 0
        """Restores that were equal."""
        self.by_time = 0

    async def note(self, key: ObjectKey) -> None:
        """The checkpointed file as it is now."""
        copy = await self.host.node.upkeep.copy(key, self._scratch / "copy")
        assert copy is not None
        self.states.setdefault(key, {})[copy.txid] = copy.path.read_bytes()

    def theirs(self, key: ObjectKey, *target: str) -> bytes:
        """What Litestream restores."""
        replica = replica_of(self.host, key)
        options = f"?endpoint={self._endpoint}&forcePathStyle=true&region=us-east-1"
        out = self._scratch / "theirs.sqlite"
        out.unlink(missing_ok=True)
        url = f"{replica.bucket.url}/{replica.layout.prefix}{options}"
        litestream("restore", *target, "-integrity-check", "full", "-o", str(out), url)
        return out.read_bytes()

    def compare(self, key: ObjectKey) -> None:
        """Every state that was noted, by TXID and by time, and the latest."""
        times = {
            file.max_txid: replica_of(self.host, key).header(file).timestamp_ms
            for file in replica_of(self.host, key).listing(RAW_LEVEL)
        }
        states = self.states[key]
        live = file_of(self._data, key).read_bytes()
        assert self.theirs(key) == live == states[max(states)]
        for txid, state in states.items():
            assert self.theirs(key, "-txid", f"{txid:016x}") == state
            # Of commits within one millisecond a time names the last; and of a URL, Litestream
            # takes only times between the first and the last upload, to the second.
            first, last = times[min(times)] + 1_100, times[max(times)] - 1_100
            if first < times[txid] < last and times[txid] < times[txid + 1]:
                assert self.theirs(key, "-timestamp", iso_from_ms(times[txid] + 1)) == state
                self.by_time += 1
            self.by_txid += 1


async def write_tenant(restorer: Restorer, name: str, draw: random.Random, count: int) -> ObjectKey:
    """Random statements, for at least so long that a restore to a second has a choice."""
    tenant = await restorer.host.tenants.ensure(name)
    ends_at = time.monotonic() + 4
    for number in itertools.count():
        if number >= count and time.monotonic() > ends_at:
            break
        sql, *params = draw.choice(
            [
                ("INSERT INTO notes(body) VALUES (hex(randomblob(?)))", draw.randrange(3_000)),
                ("UPDATE notes SET body = body || 'x' WHERE id % 3 = ?", draw.randrange(3)),
                ("DELETE FROM notes WHERE id % 7 = ?", draw.randrange(7)),
                ("INSERT INTO notes(n) VALUES (?)", number),
            ]
        )
        await execute(tenant, sql, *params)
        if number % 25 == 0:
            await restorer.note(tenant.key)
    await restorer.note(tenant.key)
    return tenant.key


async def write_objects(restorer: Restorer, count: int) -> list[ObjectKey]:
    """Objects of a class: keys, values, tables and alarms."""
    before = {each.key for each in restorer.host.node.awake.all()}
    for number in range(5):
        shelf: Any = restorer.host.objects.namespace("shelf").get_by_name(f"shelf-{number}")
        for entry in range(count):
            await shelf.put(f"{entry}", "value" * (entry + number))
    keys = [each.key for each in restorer.host.node.awake.all() if each.key not in before]
    for key in keys:
        await restorer.note(key)
    assert len(keys) == 5
    return keys


@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.nightly)])
async def test_litestream_restores_what_a_host_wrote_to_minio(
    count: int,
    minio: MinioServer,
    s3_credentials: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket = S3Bucket(new_s3_bucket(minio.url), "node/one", endpoint=minio.url, options=IMPATIENT)
    host = await start_host(tmp_path / "data", bucket, "bucket", app=app, migrations=MIGRATIONS)
    restorer = Restorer(host, tmp_path / "data", tmp_path, minio.url)
    draw = random.Random(SEED)
    try:
        keys = [await write_tenant(restorer, name, draw, count) for name in ("acme", "other")]
        keys += await write_objects(restorer, count // 10)
        await drained(host)
    finally:
        await host.close()
    for key in keys:
        restorer.compare(key)
    assert os.listdir(tmp_path / "data" / "behind") in ([], ["bucket-url"])
    stored = sum(1 for _ in minio_client(minio).list_objects(bucket_name(bucket), recursive=True))
    with capsys.disabled():
        print(
            f"\nseed {SEED}: restored by Litestream, equal to the byte: {len(keys)} latest,"
            f" {restorer.by_txid} by TXID, {restorer.by_time} by time; {stored} files in MinIO"
        )
    assert restorer.by_time


def bucket_name(bucket: S3Bucket) -> str:
    """Of the URL."""
    return bucket.url.partition("//")[2].partition("/")[0]
