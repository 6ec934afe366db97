"""What the cold tier costs, beside the real Litestream on the same MinIO and the same workload.

``python -m tests.bench.cold`` (``make bench-cold``). All of it in one run on one machine; compare
the columns of a table, not the figures of two runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import minio as minio_client

from dosql.durability import Durability
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host, HostSettings
from dosql.host.tenant import Tenant
from dosql.replica.bucket import Bucket
from dosql.replica.bucket_url import open_bucket
from tests.support.minio import ACCESS_KEY, SECRET_KEY, MinioServer

BUCKET = "bench-cold"
PAGE = 4_096
LITESTREAM = Path(sys.executable).with_name("litestream")
MiB = 1024 * 1024


class Bench:
    """One MinIO, one scratch directory."""

    def __init__(self, server: MinioServer, root: Path) -> None:
        self.server = server
        self.root = root
        self.admin = minio_client.Minio(
            server.url.removeprefix("http://"), ACCESS_KEY, SECRET_KEY, secure=False
        )
        self.admin.make_bucket(BUCKET)

    def bucket(self, prefix: str) -> Bucket:
        return open_bucket(f"s3://{BUCKET}/{prefix}", endpoint=self.server.url)

    def stored(self, prefix: str) -> tuple[int, int]:
        """Objects and bytes below a prefix, as the independent client sees them."""
        found = list(self.admin.list_objects(BUCKET, f"{prefix}/", recursive=True))
        return len(found), sum(each.size or 0 for each in found)

    @contextlib.asynccontextmanager
    async def host(
        self, name: str, prefix: str | None, durability: Durability = "local"
    ) -> AsyncIterator[Host]:
        cold = None
        if prefix is not None:
            cold = ColdTierSettings(self.bucket(prefix), durability=durability)
        host = await Host.start(HostSettings(self.root / name, cold=cold, open_objects_max=500))
        try:
            yield host
        finally:
            await host.close()
            if cold is not None:
                cold.bucket.close()

    def url(self, prefix: str) -> str:
        return (
            f"s3://{BUCKET}/{prefix}?endpoint={self.server.url}&forcePathStyle=true"
            "&region=us-east-1"
        )


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def spread(values: list[float]) -> str:
    return (
        f"p50 {percentile(values, 0.5) * 1e3:.1f} ms, p99 {percentile(values, 0.99) * 1e3:.1f} ms"
    )


async def tenant(host: Host, name: str) -> Tenant:
    await host.tenants.create(name)
    found = host.tenants.get(name)
    await found.call(_run("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)"))
    return found


def _run(sql: str, *params: Any) -> Callable[[Any], bytes]:
    def work(db: Any) -> bytes:
        db.run(sql, params)
        return b""

    return work


def _fill(mib: float) -> Callable[[Any], bytes]:
    return _run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO t(body) SELECT randomblob(1000) FROM n",
        int(mib * MiB / 1_050),
    )


async def latency(bench: Bench, count: int) -> None:
    """Added latency of a write, one client."""
    print("\nwrite of one row, one client:")
    modes: list[tuple[str, str | None, Durability]] = [
        ("no bucket", None, "local"),
        ("local, MinIO", "latency-local", "local"),
        ("bucket, MinIO", "latency-bucket", "bucket"),
    ]
    for title, prefix, durability in modes:
        async with bench.host(f"latency-{title[:5]}", prefix, durability) as host:
            one = await tenant(host, "acme")
            times: list[float] = []
            for _ in range(count):
                start = time.perf_counter()
                await one.call(_run("INSERT INTO t(body) VALUES (randomblob(100))"))
                times.append(time.perf_counter() - start)
        print(f"  {title:<14} {spread(times)}")


async def amplification(bench: Bench, writes: int) -> None:
    """Bytes uploaded per byte of changed pages, and requests, while it is used and while idle."""
    print(f"\n{writes} updates of random rows of a 10 MB table, 50 a second:")
    async with bench.host("amplification", "amplification") as host:
        one = await tenant(host, "acme")
        await one.call(_fill(10))
        assert host.cold is not None
        await host.cold.drain()
        bucket, key = host.cold.settings.bucket, one.key
        before, pages = bucket.usage, 0
        for number in range(writes):
            row = number * 7_919 % 9_000 + 1
            await one.call(_run("UPDATE t SET body = randomblob(1000) WHERE id = ?", row))
            instance = host.node.awake.peek(key)
            assert instance is not None
            pages += 1
            await asyncio.sleep(0.02)
        await host.cold.drain()
        used = bucket.usage - before
        print(
            f"  dosql        {used.bytes_up / (pages * PAGE):.2f} bytes up per byte of changed"
            f" pages, {used.requests / writes:.2f} requests per write"
        )
        idle = bucket.usage
        await asyncio.sleep(3)
        print(f"  dosql, idle  {(bucket.usage - idle).requests} requests in 3 s")
    _amplification_of_litestream(bench, writes)


def _amplification_of_litestream(bench: Bench, writes: int) -> None:
    with litestream(bench, "amplification-litestream") as database:
        _plain_fill(database, 10)
        time.sleep(3)
        objects, size = bench.stored("amplification-litestream")
        for number in range(writes):
            row = number * 7_919 % 9_000 + 1
            database.execute("UPDATE t SET body = randomblob(1000) WHERE id = ?", (row,))
            time.sleep(0.02)
        time.sleep(2.5)
        more_objects, more = bench.stored("amplification-litestream")
    print(
        f"  Litestream   {(more - size) / (writes * PAGE):.2f} bytes kept per byte of changed"
        f" pages, {(more_objects - objects) / writes:.2f} objects per write (one sync a second)"
    )


@contextlib.contextmanager
def litestream(bench: Bench, prefix: str) -> Iterator[apsw.Connection]:
    """A database that the real Litestream replicates."""
    path = bench.root / f"{prefix}.db"
    database = apsw.Connection(str(path))
    database.pragma("journal_mode", "wal")
    database.pragma("busy_timeout", 5_000)
    database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)")
    process = subprocess.Popen(
        [str(LITESTREAM), "replicate", str(path), bench.url(prefix)],
        env=_environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield database
    finally:
        process.terminate()
        process.wait(30)
        database.close()


def _plain_fill(database: apsw.Connection, mib: float) -> None:
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO t(body) SELECT randomblob(1000) FROM n",
        (int(mib * MiB / 1_050),),
    )


def _environ() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
    environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return environ


async def restore(bench: Bench, mib: int, batches: int) -> None:
    """Restore of a large database with many batches behind its first image."""
    async with bench.host("restore", "restore", "bucket") as host:
        one = await tenant(host, "acme")
        for _ in range(10):
            await one.call(_fill(mib / 10))
        for number in range(batches):
            await one.call(
                _run("UPDATE t SET body = randomblob(1000) WHERE id = ?", number * 97 % 9_000 + 1)
            )
        assert host.cold is not None
        replica = host.cold.shipper.replica(one.key)
        target = bench.root / "restored.db"
        start = time.perf_counter()
        with target.open("w+b") as out:
            image = replica.write_image(out)
        ours = time.perf_counter() - start
        prefix = replica.layout.prefix
        theirs = _litestream_restore(bench, f"restore/{prefix}")
        same = target.read_bytes() == (bench.root / "theirs.db").read_bytes()
    print(
        f"\nrestore of {image.size_bytes / MiB:.0f} MiB with {image.txid} batches:"
        f" dosql {ours:.2f} s, litestream restore {theirs:.2f} s, identical: {same}"
    )


def _litestream_restore(bench: Bench, prefix: str) -> float:
    """Seconds."""
    start = time.perf_counter()
    subprocess.run(
        [str(LITESTREAM), "restore", "-o", str(bench.root / "theirs.db"), bench.url(prefix)],
        check=True,
        env=_environ(),
        capture_output=True,
    )
    return time.perf_counter() - start


async def wake(bench: Bench, count: int) -> None:
    """First call of an object that is in the bucket only."""
    names = [f"tenant-{number}" for number in range(count)]
    async with bench.host("wake", "wake") as host:
        for name in names:
            await (await tenant(host, name)).call(_fill(1))
    shutil.rmtree(bench.root / "wake")
    times: list[float] = []
    async with bench.host("wake", "wake") as host:
        for name in names:
            start = time.perf_counter()
            await host.tenants.get(name).call(_count)
            times.append(time.perf_counter() - start)
    print(f"\nwake of a 1 MiB object from the bucket ({count} objects): {spread(times)}")


def _count(db: Any) -> bytes:
    return str(db.query("SELECT count(*) FROM t").rows[0][0]).encode()


async def measure(bench: Bench, quick: bool) -> None:
    jobs: list[Awaitable[None]] = [
        latency(bench, 100 if quick else 500),
        amplification(bench, 100 if quick else 500),
        restore(bench, 10 if quick else 100, 100 if quick else 1_000),
        wake(bench, 10 if quick else 50),
    ]
    for job in jobs:
        await job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller run, to see that it works")
    arguments = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    os.environ.setdefault("AWS_REGION", "us-east-1")
    with tempfile.TemporaryDirectory(prefix="dosql-bench-") as name:
        root = Path(name)
        (root / "minio").mkdir()
        server = MinioServer(root / "minio")
        try:
            print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
            asyncio.run(measure(Bench(server, root), arguments.quick))
        finally:
            server.close()


if __name__ == "__main__":
    main()
