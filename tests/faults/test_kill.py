"""SIGKILL under load: nothing acknowledged is lost, and nothing is applied twice."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.support.persistent_clients import PersistentClient, Progress
from tests.support.server import ServerProcess

SEED = int(os.environ.get("DOSQL_FAULT_SEED", random.SystemRandom().randrange(2**32)))
UNGATED = """
import json, sys
from dosql.objects.instance import Instance
durable = Instance.durable
async def open_early(self, txid):
    if txid < 8:  # the tenant and its table are there
        await durable(self, txid)
async def flush(self):
    while (txid := self.bookmark.txid) != self.durable_txid:
        await durable(self, txid)
Instance.durable, Instance.flush = open_early, flush
from server.run import serve
serve(json.loads(sys.argv[1]))
"""
"""Sabotage: a server that answers before its log has the write."""


@dataclass
class Outcome:
    """What the clients were told, and what the table holds in the end."""

    acknowledged: int
    lost: int
    duplicated: int
    integrity: str
    kills: int
    replayed: int
    lost_replies: int
    seconds: float
    restarts_ms: list[int] = field(default_factory=list[int])
    """From the kill to the first acknowledgement after it."""
    syncs_per_1000: float = 0.0
    """In the last life of the server, per 1,000 acknowledged inserts."""

    def __str__(self) -> str:
        times = sorted(self.restarts_ms)
        return (
            f"{self.kills} kills, {self.acknowledged} acknowledged in {self.seconds:.1f} s:"
            f" {self.lost} lost, {self.duplicated} twice, integrity {self.integrity};"
            f" {self.lost_replies} replies lost, {self.replayed} replayed;"
            f" {self.syncs_per_1000:.0f} syncs per 1,000 inserts;"
            f" kill to next answer: median {times[len(times) // 2]} ms, worst {times[-1]} ms"
        )


async def kill_under_load(
    server: ServerProcess, *, kills: int, clients: int, rows: int, seed: int
) -> Outcome:
    """Run the clients to their end, with that many kills on the way."""
    randomness = random.Random(seed)
    created = server.sql("acme", "run", "CREATE TABLE ledger(client INTEGER, n INTEGER)")
    assert created.status == 200
    progress = Progress()
    began = time.monotonic()
    work = asyncio.gather(
        *(
            PersistentClient(number, lambda: server.url, server.admin_token, "acme").insert(
                rows, progress
            )
            for number in range(clients)
        )
    )
    restarts_ms: list[int] = []
    done = 0
    while done < kills and not work.done():
        await progress.next_one(work)
        await asyncio.sleep(randomness.uniform(0.05, 0.5))
        killed = time.monotonic()
        server.kill()
        await asyncio.to_thread(server.restart)
        await progress.next_one(work)
        restarts_ms.append(int((time.monotonic() - killed) * 1000))
        done += 1
    before = progress.acknowledged
    syncs = server.metric("dosql_flushes_total")
    await work
    syncs = server.metric("dosql_flushes_total") - syncs
    seconds = time.monotonic() - began
    counts = server.sql(
        "acme",
        "query",
        "SELECT count(*) AS rows, count(DISTINCT client * 1000000 + n) AS keys FROM ledger",
    ).json()["rows"][0]
    integrity = server.sql("acme", "query", "PRAGMA integrity_check").json()["rows"]
    return Outcome(
        acknowledged=progress.acknowledged,
        lost=clients * rows - counts["keys"],
        duplicated=counts["rows"] - counts["keys"],
        integrity=integrity[0]["integrity_check"],
        kills=done,
        replayed=progress.replayed,
        lost_replies=progress.lost_replies,
        seconds=seconds,
        restarts_ms=restarts_ms,
        syncs_per_1000=1000 * syncs / max(1, progress.acknowledged - before),
    )


def check(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the figures; nothing may be lost or doubled."""
    with capsys.disabled():
        print(f"\nseed {SEED}: {outcome}")
    assert (outcome.lost, outcome.duplicated, outcome.integrity) == (0, 0, "ok")


@pytest.mark.timeout(300)
async def test_twenty_kills_among_64_000_inserts_lose_nothing_and_apply_nothing_twice(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 clients; every insert is retried with its key until it is acknowledged."""
    outcome = await kill_under_load(server, kills=20, clients=64, rows=1_000, seed=SEED)
    check(outcome, capsys)
    assert outcome.kills == 20
    assert outcome.acknowledged == 64_000
    assert outcome.lost_replies > 0, "no kill hit a call under way"


@pytest.mark.nightly
async def test_two_hundred_kills(
    start_server: Callable[..., ServerProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    """With a log so small that it is cut all the time."""
    server = start_server(log_bytes_max=32 * 1024 * 1024)
    outcome = await kill_under_load(server, kills=200, clients=64, rows=10_000, seed=SEED)
    check(outcome, capsys)


async def test_answering_before_the_log_has_the_write_is_noticed(
    start_server: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.server._PROGRAM", UNGATED)
    outcome = await kill_under_load(start_server(), kills=5, clients=64, rows=150, seed=SEED)
    assert outcome.lost > 0
