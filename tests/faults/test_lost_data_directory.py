"""The whole data directory is deleted under load, and the server starts again from its bucket."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.buckets import new_s3_bucket, s3_credentials
from tests.support.cold import fault_seed
from tests.support.cold_servers import Answers, WritingClient, cold_server
from tests.support.hosts import until
from tests.support.minio import MinioServer
from tests.support.server import ServerProcess

__all__ = ["s3_credentials"]
SEED = fault_seed()
CLIENTS = 8
TOO_EARLY = """
import time
from dosql.host.cold_tier import ColdTier
from dosql.replica.replica import Replica
woke, put = ColdTier.woke, Replica.put
ColdTier.woke = lambda *some: (woke(*some), None)[1]
Replica.put = lambda *some, **named: (time.sleep(0.3), put(*some, **named))[1]
"""
"""Sabotage: replies go out when the log has the write, and the bucket is slow."""
Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path, minio: MinioServer, s3_credentials: None) -> Iterator[Start]:
    """Starts servers on one new bucket; killed after the test."""
    servers: list[ServerProcess] = []
    bucket = new_s3_bucket(minio.url)

    def begin(**settings: object) -> ServerProcess:
        server = cold_server(tmp_path / "data", minio, bucket, **settings)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.kill()


@dataclass
class Losses:
    """What came of all rounds."""

    rounds: int = 0
    acknowledged: int = 0
    lost: int = 0
    oldest_lost_ms: int = 0
    """How long before the kill the oldest write that was lost had been acknowledged."""

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.acknowledged} acknowledged, {self.lost} lost,"
            f" the oldest of them {self.oldest_lost_ms} ms before the kill"
        )


async def lose(server: ServerProcess, rounds: int, pause_s: float = 0.0) -> Losses:
    """Write, kill -9, rm -rf, start; and again. After each start everything is counted."""
    randomness = random.Random(SEED)
    create = "CREATE TABLE ledger(id INTEGER PRIMARY KEY, value TEXT UNIQUE)"
    assert server.sql("acme", "run", create).status == 200
    server.wait_for(lambda: server.metric("dosql_objects_behind") == 0, "the bucket")
    losses = Losses()
    loop = asyncio.get_running_loop()
    for number in range(rounds):
        answers, ended = Answers(), asyncio.Event()
        clients = [
            WritingClient(f"r{number}-", client, lambda: server.url, answers)
            for client in range(CLIENTS)
        ]
        tasks = [asyncio.create_task(client.run(ended, pause_s)) for client in clients]
        await until(lambda answers=answers: len(answers.acknowledged) >= 20, seconds=60)  # type: ignore[misc]
        await asyncio.sleep(randomness.uniform(0.1, 1.0))
        ended.set()
        server.process.kill()
        killed_at = loop.time()
        await asyncio.gather(*tasks)
        await asyncio.to_thread(server.kill)
        shutil.rmtree(server.data_dir)
        await asyncio.to_thread(server.restart)
        reply = await asyncio.to_thread(
            server.sql, "acme", "query", f"SELECT value FROM ledger WHERE value LIKE 'r{number}-%'"
        )
        assert reply.status == 200, reply.body
        kept = {row["value"] for row in reply.json()["rows"]}
        gone = set(answers.acknowledged) - kept
        losses.rounds += 1
        losses.acknowledged += len(answers.acknowledged)
        losses.lost += len(gone)
        if gone:
            oldest = min(answers.at[value] for value in gone)
            losses.oldest_lost_ms = max(losses.oldest_lost_ms, int((killed_at - oldest) * 1000))
    check = server.sql("acme", "query", "PRAGMA integrity_check").json()["rows"]
    assert check[0]["integrity_check"] == "ok"
    return losses


def show(losses: Losses, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures."""
    with capsys.disabled():
        print(f"\nseed {SEED}, {mode}: {losses}")


async def test_nothing_acknowledged_is_lost_with_the_data_directory(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = await lose(start(durability="bucket"), 3)
    show(losses, "bucket", capsys)
    assert losses.lost == 0


async def test_in_mode_local_no_more_than_the_unshipped_second_is_lost(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second of pace, one request, and what a slow machine adds."""
    losses = await lose(start(durability="local"), 2)
    show(losses, "local", capsys)
    assert losses.oldest_lost_ms < 3_000


async def test_replies_that_do_not_wait_for_the_bucket_are_noticed(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sabotage."""
    losses = await lose(start(durability="bucket", prelude=TOO_EARLY), 1)
    show(losses, "sabotage", capsys)
    assert losses.lost > 0


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["bucket", "local"])
async def test_fifty_rounds(mode: str, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    losses = await lose(start(durability=mode), 50)
    show(losses, mode, capsys)
    assert losses.lost == 0 or (mode == "local" and losses.oldest_lost_ms < 3_000)
