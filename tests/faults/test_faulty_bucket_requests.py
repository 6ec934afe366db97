"""Thousands of batches through a proxy that breaks requests and replies: no gap, the same bytes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dosql.replica.plan import RAW_LEVEL
from dosql.replica.s3_bucket import S3Bucket
from tests.replica.litestream import litestream
from tests.support.buckets import IMPATIENT, new_s3_bucket, s3_credentials
from tests.support.cold import drained, fault_seed, file_of, replica_of, restored, start_host
from tests.support.faulty_proxy import Fault, FaultyProxy, by_chance
from tests.support.hosts import execute
from tests.support.minio import MinioServer

__all__ = ["s3_credentials"]
SEED = fault_seed()
FAULTS: list[Fault] = [
    "reset",
    "lost_reply",
    "slow_down",
    "conflict",
    "error",
    "error_after",
    "bad_gateway_after",
    "truncated",
]
RATE = 0.15


@pytest.fixture
def proxy(minio: MinioServer, s3_credentials: None) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(minio.url)
    yield proxy
    proxy.close()


async def write(
    root: Path, bucket: S3Bucket, batches: int, proxy: FaultyProxy, seed: int = SEED
) -> str:
    """So many batches of one tenant; everything is compared. The figures."""
    root.mkdir(exist_ok=True)
    randomness = random.Random(seed)
    proxy.latency_s = 0.002
    proxy.choose = by_chance(random.Random(seed), RATE, FAULTS)
    host = await start_host(root / "data", bucket, "bucket")
    try:
        tenant = await host.tenants.ensure("acme")
        await execute(tenant, "CREATE TABLE items(id INTEGER PRIMARY KEY, value BLOB)")
        txids: set[int] = set()
        while len(txids) < batches:
            size, old = randomness.randrange(1, 6_000), randomness.randrange(1, 400)
            for sql, value in [
                ("INSERT OR REPLACE INTO items VALUES (?, zeroblob(?))", (old, size)),
                ("UPDATE items SET value = randomblob(?) WHERE id = ?", (size, old)),
            ][: randomness.choice([1, 2])]:
                await execute(tenant, sql, *value)
            txids.add(host.tenants.awake.txid(tenant.key))
        await drained(host)
        faults = Counter(each.fault for each in proxy.passed if each.fault)
        requests = len(proxy.passed)
        proxy.choose = lambda method, path: None
        replica = replica_of(host, tenant.key)
        spans = [(file.min_txid, file.max_txid) for file in replica.listing(RAW_LEVEL)]
        newest = host.tenants.awake.txid(tenant.key)
    finally:
        proxy.choose = lambda method, path: None
        await host.close()
    gaps = sum(1 for number, span in enumerate(spans, 1) if span != (number, number)) + (
        len(spans) != newest
    )
    live = file_of(root / "data", tenant.key).read_bytes()
    ours = restored(replica, root / "ours.sqlite")
    url = f"{replica.bucket.url}/{replica.layout.prefix}{options(proxy)}"
    litestream("restore", "-integrity-check", "full", "-o", str(root / "theirs.sqlite"), url)
    theirs = (root / "theirs.sqlite").read_bytes()
    figures = (
        f"seed {seed}: {len(spans)} batches, {requests} requests, {faults.total()} faults"
        f" {dict(faults)}, {gaps} gaps, ours {'equal' if ours == live else 'DIFFERS'},"
        f" Litestream's {'equal' if theirs == live else 'DIFFERS'} ({len(live)} bytes)"
    )
    assert gaps == 0, figures
    assert ours == live, figures
    assert theirs == live, figures
    return figures


def options(proxy: FaultyProxy) -> str:
    """What Litestream needs behind the URL."""
    return f"?endpoint=http://{proxy.upstream}&forcePathStyle=true&region=us-east-1"


def bucket_behind(proxy: FaultyProxy) -> S3Bucket:
    """A new one."""
    return S3Bucket(
        new_s3_bucket(f"http://{proxy.upstream}"), "node", endpoint=proxy.url, options=IMPATIENT
    )


async def test_300_batches_through_broken_requests(
    proxy: FaultyProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = await write(tmp_path, bucket_behind(proxy), 300, proxy)
    with capsys.disabled():
        print(f"\n{figures}")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_5000_batches_through_broken_requests(
    proxy: FaultyProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = await write(tmp_path, bucket_behind(proxy), 5_000, proxy)
    with capsys.disabled():
        print(f"\n{figures}")


async def test_a_shipment_that_believes_every_reply_leaves_gaps(
    proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: what failed is not tried again. So that one of the failures is of a file, and not
    of what else is asked of the bucket, it goes on until there are enough of them."""
    from dosql.errors import DosqlError
    from dosql.replica.replica import Replica

    put = Replica.put

    def once(self: Replica, *some: object, **named: object) -> int:
        try:
            return put(self, *some, **named)  # type: ignore[arg-type]
        except DosqlError:
            return 0

    with monkeypatch.context() as patch:
        patch.setattr(Replica, "put", once)
        with pytest.raises((AssertionError, DosqlError)):
            for number in range(10):
                await write(tmp_path / f"{number}", bucket_behind(proxy), 60, proxy, SEED + number)
    await asyncio.sleep(0)
