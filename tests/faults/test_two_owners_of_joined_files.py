"""Two servers that acknowledge before the bucket has it, and send many commits as one file.

Either may lose what it acknowledged to the other: that is what the mode ``local`` says. But what
the bucket holds is always what one of them had.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from pathlib import Path

import apsw
import pytest

from dosql.errors import DosqlError
from dosql.host.host import Host
from dosql.pages import PageSet
from dosql.replica.history import check_database
from dosql.replica.ltx import Header, encode
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import RAW_LEVEL, FileInfo
from dosql.replica.replica import Replica
from dosql.sqlite.database import Database
from tests.support.cold import fault_seed, restored
from tests.support.two_owners import Sides

SEED = fault_seed()
TABLE = "CREATE TABLE ledger(id INTEGER PRIMARY KEY, value TEXT UNIQUE, before INTEGER, filler)"
INSERT = (
    "INSERT INTO ledger(value, before, filler)"
    " VALUES (?, (SELECT count(*) FROM ledger), hex(randomblob(300)))"
)
"""A row says how many came before it, and pages are filled soon: histories that were mixed show."""


@pytest.fixture(autouse=True)
def joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """From three waiting batches on, all of them go as one file; nobody pauses."""
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_COALESCE_FROM", 3)
    monkeypatch.setattr("dosql.replica.pace.REPLICA_INTERVAL_S", 0.0)
    monkeypatch.setattr("dosql.replica.shipment.REPLICA_RETRY_S_MAX", 0.02)


class Struggle:
    """Clients on both sides, until the tenant has changed hands often enough."""

    def __init__(self, sides: Sides, randomness: random.Random) -> None:
        self._sides = sides
        self._randomness = randomness
        self._ended = asyncio.Event()
        self.tried: set[str] = set()

    async def run(self, takeovers: int) -> None:
        tasks = [
            asyncio.create_task(self._client(side, number)) for side in "ab" for number in range(2)
        ]
        tasks += [asyncio.create_task(self._forget(host)) for host in self._sides.hosts.values()]
        try:
            async with asyncio.timeout(120):
                while (  # noqa: ASYNC110 - what is waited for sends no event
                    await asyncio.to_thread(self._sides.takeovers) < takeovers
                    or not self._has_joined()
                ):
                    await asyncio.sleep(0.1)
        finally:
            self._ended.set()
            await asyncio.gather(*tasks)

    def _has_joined(self) -> bool:
        return any(file.min_txid < file.max_txid for file in raw_files(self._sides.replica))

    async def _client(self, side: str, number: int) -> None:
        for n in itertools.count():
            if self._ended.is_set():
                return
            value = f"{side}{number}-{n:06d}"

            def insert(db: Database, value: str = value) -> bytes:
                db.run(INSERT, [value])
                return b""

            self.tried.add(value)
            try:
                await self._sides.hosts[side].tenants.get("acme").call(insert)
            except DosqlError:
                await asyncio.sleep(0.01)
            await asyncio.sleep(self._randomness.choice([0, 0, 0.001, 0.01]))

    async def _forget(self, host: Host) -> None:
        """Now and then there is no memory for what waits: an image is sent instead."""
        while not self._ended.is_set():
            await asyncio.sleep(self._randomness.uniform(0.01, 0.2))
            shipment = host.cold and host.cold.shipper.find(self._sides.key)
            if shipment:
                shipment.drop_spool()


def raw_files(replica: Replica) -> list[FileInfo]:
    return sorted(replica.listing(RAW_LEVEL), key=lambda each: (each.min_txid, each.max_txid))


def faults(replica: Replica, tried: set[str], target: Path) -> list[str]:
    """What must not be in the bucket."""
    found: list[str] = []
    files = raw_files(replica)
    for left, right in itertools.pairwise(files):
        if right.min_txid != left.max_txid + 1:
            found.append(f"{right.name} does not follow {left.name}")
    try:
        restored(replica, target)
        check_database(target)
        connection = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READONLY)
        rows = connection.execute("SELECT value, before FROM ledger ORDER BY id").fetchall()
        connection.close()
    except (DosqlError, apsw.Error) as error:
        return [*found, f"it cannot be restored: {error}"]
    values = [str(value) for value, _ in rows]
    found += [f"nobody wrote {value}" for value in set(values) - tried]
    found += [f"{value} is there twice" for value, count in Counter(values).items() if count > 1]
    if [before for _, before in rows] != list(range(len(rows))):
        found.append("rows of two histories")
    return found


async def struggle(root: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is wrong after it."""
    sides = await Sides.start(root, MemoryBucket(), seed, 0.005, "local", TABLE)
    try:
        play = Struggle(sides, random.Random(seed))
        await play.run(takeovers=8)
    finally:
        await sides.close()
    files = raw_files(sides.replica)
    with capsys.disabled():
        several = sum(each.min_txid < each.max_txid for each in files)
        print(f"\nseed {seed}: {sides.takeovers()} takeovers, {len(files)} files, {several} joined")
    return faults(sides.replica, play.tried, root / "restored.sqlite")


async def test_the_bucket_holds_one_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await struggle(tmp_path, SEED, capsys) == []


async def test_a_file_whose_name_the_other_cannot_know_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: what is joined is named after all that it brings."""

    def put(
        self: Replica, pages: PageSet, first: int, last: int, *, timestamp_ms: int, epoch: int
    ) -> list[FileInfo]:
        header = Header(pages.page_size, pages.commit, first, last, timestamp_ms, epoch)
        data = encode(header, pages.pages)
        self._put_raw(header, data)
        return [FileInfo(RAW_LEVEL, first, last, len(data), timestamp_ms)]

    monkeypatch.setattr(Replica, "put", put)
    for attempt in range(10):
        if await struggle(tmp_path / f"{attempt}", SEED + attempt, capsys):
            return
    pytest.fail("nothing was wrong")
