"""Two hosts that fight for one tenant over one bucket, and the check of what came of it.

Both are started on data directories of their own. So that the fight can go on for long, each has
a catalog of its own in the bucket (`OwnCatalog`): only the tenant is contested. Whichever side is
called next takes it over.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import apsw
from msgspec.structs import replace

from dosql.durability import Durability
from dosql.errors import DosqlError, OutcomeUnknownError
from dosql.host.host import Host
from dosql.log.records import ObjectKey
from dosql.replica.bucket import NO_METADATA, Bucket, ObjectInfo
from dosql.replica.plan import RAW_LEVEL
from dosql.replica.replica import Replica
from dosql.sqlite.database import Database
from tests.support.buckets import WrappedBucket
from tests.support.cold import CATALOG_PREFIX, drained, key_of, replica_of, restored, start_host
from tests.support.hosts import execute

TABLE = "CREATE TABLE ledger(id INTEGER PRIMARY KEY, value TEXT)"


class OwnCatalog(WrappedBucket):
    """One side's view: its catalog is elsewhere, and its requests may be slow."""

    def __init__(self, inner: Bucket, side: str, randomness: random.Random, pause_s: float) -> None:
        super().__init__(inner)
        self._own = f"{side}-catalog-"
        self._randomness = randomness
        self._pause_s = pause_s
        self._lock = threading.Lock()

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        self._pause()
        there = self._there(key)
        done = super().put(there, data, if_absent=if_absent, if_match=if_match, metadata=metadata)
        self._pause()
        return done

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._pause()
        return super().get(self._there(key), start=start, length=length)

    def open(self, key: str) -> BinaryIO:
        return super().open(self._there(key))

    def head(self, key: str) -> ObjectInfo | None:
        self._pause()
        return super().head(self._there(key))

    def delete(self, keys: Iterable[str]) -> None:
        super().delete([self._there(key) for key in keys])

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        self._pause()
        after = self._there(after) if after else ""
        for each in super().list(self._there(prefix), after=after, limit=limit):
            yield replace(each, key=self._here(each.key))

    def _there(self, key: str) -> str:
        if key.startswith(CATALOG_PREFIX):
            return self._own + key.removeprefix(CATALOG_PREFIX)
        return key

    def _here(self, key: str) -> str:
        return CATALOG_PREFIX + key.removeprefix(self._own) if key.startswith(self._own) else key

    def _pause(self) -> None:
        """Mostly short; now and then as long as a process that is stopped."""
        with self._lock:
            chance, length = self._randomness.random(), self._randomness.random()
        if self._pause_s and chance < 0.5:
            time.sleep(self._pause_s * length * (20 if chance < 0.02 else 1))


class PlainPuts(WrappedBucket):
    """Sabotage: a store that does not know ``If-None-Match``."""

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        return super().put(key, data, metadata=metadata)


@dataclass
class Fight:
    """What the clients of both sides were told."""

    acknowledged: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """Value to side and TXID."""
    refused: Counter[str] = field(default_factory=Counter[str])
    """Codes of errors."""
    not_written: set[str] = field(default_factory=set[str])
    """Values whose error said so."""
    slowest_s: float = 0.0
    """The longest that a call took, whatever came of it."""
    takeovers: int = 0
    """Fences in the tenant's log."""
    problems: list[str] = field(default_factory=list[str])

    def acknowledging(self) -> set[str]:
        """The sides that acknowledged something."""
        return {side for side, _ in self.acknowledged.values()}

    def __str__(self) -> str:
        return (
            f"{self.takeovers} takeovers, {len(self.acknowledged)} acknowledged,"
            f" refused {dict(self.refused)}, slowest call {self.slowest_s:.1f} s,"
            f" {len(self.problems)} problems {self.problems[:3]}"
        )


class Sides:
    """Two hosts of one tenant."""

    def __init__(self, hosts: dict[str, Host], key: ObjectKey) -> None:
        self.hosts = hosts
        self.key = key
        self._writers: dict[int, int] = {}

    @classmethod
    async def start(
        cls,
        root: Path,
        bucket: Bucket,
        seed: int,
        pause_s: float,
        durability: Durability = "bucket",
        table: str = TABLE,
    ) -> Sides:
        """The first makes the tenant; the second gets a copy of the first's catalog."""
        views = {
            side: OwnCatalog(bucket, side, random.Random(seed + number), pause_s)
            for number, side in enumerate("ab")
        }
        first = await start_host(root / "a", views["a"], durability)
        tenant = await first.tenants.ensure("acme")
        await execute(tenant, table)
        await drained(first)
        for each in list(bucket.list("a-catalog-")):
            key = each.key.replace("a-", "b-", 1)
            bucket.put(key, bucket.get(each.key))
        second = await start_host(root / "b", views["b"], durability)
        return cls({"a": first, "b": second}, key_of(first))

    async def close(self) -> None:
        """Both."""
        for host in self.hosts.values():
            await host.close()

    @property
    def replica(self) -> Replica:
        """The tenant's files."""
        return replica_of(self.hosts["a"], self.key)

    def takeovers(self) -> int:
        """Changes of the writer so far, as the tenant's log tells them."""
        newest = max(self._writers, default=0)
        self._writers.update(writers(self.replica, newest + 1))
        epochs = [self._writers[txid] for txid in sorted(self._writers)]
        return sum(left != right for left, right in itertools.pairwise(epochs))

    async def fight(self, takeovers: int, randomness: random.Random, clients: int = 3) -> Fight:
        """Clients on both sides write until the tenant changed hands so often and both sides have
        acknowledged something: on a busy machine one may lose for a while."""
        fight = Fight()
        ended = asyncio.Event()

        async def client(side: str, number: int) -> None:
            for n in itertools.count():
                if ended.is_set():
                    return
                await self._write(side, f"{side}{number}-{n:06d}", fight)
                await asyncio.sleep(randomness.choice([0, 0.002, 0.01, 0.05]))

        tasks = [
            asyncio.create_task(client(side, number)) for side in "ab" for number in range(clients)
        ]
        try:
            while fight.takeovers < takeovers or len(fight.acknowledging()) < 2:
                await asyncio.sleep(0.2)
                fight.takeovers = await asyncio.to_thread(self.takeovers)
        finally:
            ended.set()
            await asyncio.gather(*tasks)
        return fight

    async def _write(self, side: str, value: str, fight: Fight) -> None:
        began = time.monotonic()

        def insert(db: Database) -> bytes:
            db.run("INSERT INTO ledger(value) VALUES (?)", [value])
            return b""

        try:
            done = await self.hosts[side].tenants.get("acme").call(insert)
            fight.acknowledged[value] = (side, done.bookmark.txid)
        except OutcomeUnknownError as error:
            fight.refused[error.code] += 1
        except DosqlError as error:
            fight.refused[error.code] += 1
            fight.not_written.add(value)
        fight.slowest_s = max(fight.slowest_s, time.monotonic() - began)


def writers(replica: Replica, from_txid: int = 1) -> list[tuple[int, int]]:
    """TXID and writer (the data directory) of each file of the raw level, in order."""
    found = replica.listing(RAW_LEVEL, from_txid)
    return [(file.max_txid, replica.header(file).node_id >> 24) for file in found]


def check(fight: Fight, replica: Replica, target: Path) -> None:
    """Note everything that must not be."""
    restored(replica, target)
    connection = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READONLY)
    kept: list[str] = [
        str(row[0]) for row in connection.execute("SELECT value FROM ledger ORDER BY id")
    ]
    connection.close()
    problems = fight.problems
    counts = Counter(kept)
    for value in fight.acknowledged:
        if counts[value] != 1:
            problems.append(f"{value} was acknowledged and is there {counts[value]} times")
    problems += [f"{value} was refused and is there" for value in fight.not_written & set(kept)]
    sides: dict[int, set[str]] = {}
    for side, txid in fight.acknowledged.values():
        sides.setdefault(txid, set()).add(side)
    twice = [txid for txid, two in sides.items() if len(two) > 1]
    problems += [f"TXID {txid} was acknowledged by both" for txid in twice]
    order = [fight.acknowledged[value][1] for value in kept if value in fight.acknowledged]
    if order != sorted(order):
        problems.append("the rows are not in the order of their TXIDs")
    written = dict(writers(replica))
    authors: dict[str, set[int]] = {}
    for side, txid in fight.acknowledged.values():
        if txid in written:  # else it was merged
            authors.setdefault(side, set()).add(written[txid])
    if any(len(each) > 1 for each in authors.values()):
        problems.append("a side acknowledged what the other had written")
