"""Two servers that both hold an object to be theirs never both acknowledge."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from dosql.replica.bucket import Bucket
from dosql.replica.layout import Layout
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.replica import Replica
from dosql.replica.s3_bucket import S3Bucket
from tests.support.buckets import IMPATIENT, new_s3_bucket, s3_bucket, s3_credentials
from tests.support.cold import CATALOG_PREFIX, PREFIX, fault_seed
from tests.support.cold_servers import Answers, WritingClient, cold_server
from tests.support.minio import MinioServer
from tests.support.two_owners import TABLE, Fight, PlainPuts, Sides, check, writers

__all__ = ["s3_credentials"]
SEED = fault_seed()


async def fought(
    root: Path, bucket: Bucket, takeovers: int, pause_s: float, seed: int = SEED
) -> Fight:
    """The fight, checked."""
    sides = await Sides.start(root, bucket, seed, pause_s)
    try:
        fight = await sides.fight(takeovers, random.Random(seed))
        check(fight, sides.replica, root / "restored.sqlite")
        return fight
    finally:
        await sides.close()


def judge(fight: Fight, takeovers: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the figures; nothing may be wrong, and it must have been a fight."""
    with capsys.disabled():
        print(f"\nseed {SEED}: {fight}")
    assert fight.problems == []
    assert fight.takeovers >= takeovers
    assert fight.acknowledging() == {"a", "b"}


async def test_two_hosts_that_fight_for_a_tenant_never_both_acknowledge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(await fought(tmp_path, MemoryBucket(), 40, 0.005), 40, capsys)


async def test_two_hosts_fight_over_minio(
    tmp_path: Path,
    minio: MinioServer,
    s3_credentials: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge(await fought(tmp_path, s3_bucket(minio.url), 15, 0.0), 15, capsys)


async def test_a_store_that_ignores_the_condition_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sabotage."""
    sides = await Sides.start(tmp_path, PlainPuts(MemoryBucket()), SEED, 0.005)
    try:
        fight = await sides.fight(5, random.Random(SEED))
        check(fight, sides.replica, tmp_path / "restored.sqlite")
    finally:
        await sides.close()
    assert fight.problems


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("store", ["memory", "minio"])
async def test_500_takeovers(
    store: str,
    tmp_path: Path,
    minio: MinioServer,
    s3_credentials: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ten fights of fifty: a takeover reads all that was written so far."""
    takeovers = acknowledged = 0
    for number in range(10):
        bucket = MemoryBucket() if store == "memory" else s3_bucket(minio.url)
        fight = await fought(
            tmp_path / f"{number}", bucket, 50, 0.003 if store == "memory" else 0.0, SEED + number
        )
        judge(fight, 50, capsys)
        takeovers += fight.takeovers
        acknowledged += len(fight.acknowledged)
    with capsys.disabled():
        print(f"\nseed {SEED}, {store}: {takeovers} takeovers, {acknowledged} acknowledged")


# --- real servers, paused ---------------------------------------------------------------------


async def paused_fight(
    root: Path, minio: MinioServer, rounds: int, randomness: random.Random
) -> tuple[Fight, int]:
    """Two servers on one bucket with clients on both; in each round one of them is stopped for a
    while at a random moment. A server that says it was replaced is started anew. The outcome, and
    how often that happened."""
    name = new_s3_bucket(minio.url)
    servers = {"a": cold_server(root / "a", minio, name, durability="bucket")}
    answers, ended, restarts = Answers(), asyncio.Event(), 0
    try:
        assert servers["a"].sql("acme", "run", TABLE).status == 200
        servers["b"] = cold_server(root / "b", minio, name, durability="bucket")
        clients = [
            WritingClient(side, number, lambda side=side: servers[side].url, answers)  # type: ignore[misc]
            for side in "ab"
            for number in range(3)
        ]
        tasks = [asyncio.create_task(client.run(ended, 0.01)) for client in clients]
        for _ in range(rounds):
            await asyncio.sleep(randomness.uniform(0.05, 0.5))
            side = randomness.choice("ab")
            os.kill(servers[side].process.pid, signal.SIGSTOP)
            await asyncio.sleep(randomness.uniform(0.2, 1.5))
            os.kill(servers[side].process.pid, signal.SIGCONT)
            for server in servers.values():
                ready = await asyncio.to_thread(server.request, "GET", "/ready")
                if b"taken over" in ready.body:
                    restarts += 1
                    await asyncio.to_thread(server.restart)
        ended.set()
        await asyncio.gather(*tasks)
    finally:
        ended.set()
        for server in servers.values():
            os.kill(server.process.pid, signal.SIGCONT)
            server.kill()
    bucket = S3Bucket(name, "node", endpoint=minio.url, options=IMPATIENT)
    found = [each for each in bucket.list_directories(PREFIX) if not is_catalog(each)]
    assert len(found) == 1
    replica = Replica(bucket, Layout(found[0].rstrip("/")))
    fight = Fight(answers.acknowledged, Counter(answers.codes), answers.not_written)
    epochs = [epoch for _, epoch in writers(replica)]
    fight.takeovers = sum(left != right for left, right in itertools.pairwise(epochs))
    check(fight, replica, root / "restored.sqlite")
    return fight, restarts


def is_catalog(directory: str) -> bool:
    """Whether these are the files of the catalog."""
    return directory.startswith(CATALOG_PREFIX)


async def test_servers_that_are_paused_at_any_moment_never_both_acknowledge(
    tmp_path: Path, minio: MinioServer, s3_credentials: None, capsys: pytest.CaptureFixture[str]
) -> None:
    fight, restarts = await paused_fight(tmp_path, minio, 6, random.Random(SEED))
    with capsys.disabled():
        print(f"\nseed {SEED}, 6 SIGSTOPs: {fight}; {restarts} restarts of a replaced server")
    assert fight.problems == []
    assert fight.takeovers > 0


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_100_pauses_of_real_servers(
    tmp_path: Path, minio: MinioServer, s3_credentials: None, capsys: pytest.CaptureFixture[str]
) -> None:
    fight, restarts = await paused_fight(tmp_path, minio, 100, random.Random(SEED))
    with capsys.disabled():
        print(f"\nseed {SEED}, 100 SIGSTOPs: {fight}; {restarts} restarts of a replaced server")
    assert fight.problems == []
    assert fight.takeovers > 0
