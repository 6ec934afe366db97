"""Power loss under load, on a real file system: nothing acknowledged is lost.

A process writes to a loop-mounted ext4 and says what was acknowledged. At a random moment the
file system is shut down without a flush of its journal, as a power loss does; then it is mounted
again, the host recovers, and every acknowledged row must be there.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dosql.errors import CorruptError
from dosql.host.host import Host, HostSettings
from dosql.sqlite.database import Database
from tests.support.acknowledger import WRITERS_PER_TENANT
from tests.support.power import LoopDisk, why_not

SEED = int(os.environ.get("DOSQL_FAULT_SEED", random.SystemRandom().randrange(2**32)))
_ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def disk() -> Iterator[LoopDisk]:
    """A disk of the test's own; the test is skipped where there can be none."""
    reason = why_not()
    if reason is not None:
        pytest.skip(f"power cannot be cut: {reason}")
    with LoopDisk() as disk:
        yield disk


@dataclass
class Tally:
    """What all rounds together came to."""

    rounds: int = 0
    acknowledged: int = 0
    lost: int = 0
    halves: int = 0
    recovery_ms: int = 0
    """The longest start after a power loss."""


def run_rounds(disk: LoopDisk, rounds: int, *, skip_syncs: bool = False) -> Tally:
    """So many power losses on one data directory; every row ever acknowledged is looked for."""
    randomness = random.Random(SEED)
    tally = Tally()
    acknowledged: dict[str, set[int]] = {}
    data_dir = disk.path / "data"
    for number in range(rounds):
        for line in acknowledged_until_power_loss(disk, data_dir, number, randomness, skip_syncs):
            tenant, id = line.split()
            acknowledged.setdefault(tenant, set()).add(int(id))
            tally.acknowledged += 1
        began = time.monotonic()
        try:
            found = asyncio.run(recovered(data_dir))
        except CorruptError:  # nothing is served: all of it is lost
            found = {}
        tally.recovery_ms = max(tally.recovery_ms, int((time.monotonic() - began) * 1000))
        tally.rounds += 1
        for tenant, ids in acknowledged.items():
            there = found.get(tenant, set())
            lost = ids - there
            tally.lost += len(lost)
            acknowledged[tenant] = ids - lost  # count each once
            tally.halves += halves(there, 1 if tenant.startswith("new") else WRITERS_PER_TENANT)
    return tally


def acknowledged_until_power_loss(
    disk: LoopDisk, data_dir: Path, number: int, randomness: random.Random, skip_syncs: bool
) -> list[str]:
    """Run a writing process, cut the power under it, mount again; what it had acknowledged."""
    options = ["--skip-syncs"] if skip_syncs else []
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.acknowledger", str(data_dir), str(number), *options],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        time.sleep(randomness.uniform(0.05, 0.5))
        disk.cut_power()
    finally:
        process.kill()
        output, _ = process.communicate()
    disk.restore_power()
    lines = output.splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


async def recovered(data_dir: Path) -> dict[str, set[int]]:
    """Start a host on what is left and read every tenant's ids."""
    found: dict[str, set[int]] = {}
    host = await Host.start(HostSettings(data_dir))
    try:
        for info in host.tenants.list("", 1_000, None).tenants:
            ids: set[int] = set()

            def work(db: Database, ids: set[int] = ids) -> bytes:
                assert db.query("PRAGMA integrity_check").rows == [("ok",)]
                ids.clear()
                for (id,) in db.internal_query("SELECT id FROM items"):
                    assert isinstance(id, int)
                    ids.add(id)
                return b""

            await host.tenants.get(info.name).call(work)
            found[info.name] = ids
    finally:
        await host.close()
    return found


def halves(ids: set[int], step: int) -> int:
    """Rows that went in together and are not there together; see `acknowledger.write`."""
    missing = [id for id in ids if id // step % 10 == 0 and id + step not in ids]
    return len(missing) + len([id for id in ids if id // step % 10 == 1 and id - step not in ids])


def report(tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nseed {SEED}: {tally}")


@pytest.mark.root
def test_three_power_losses_lose_nothing(
    disk: LoopDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = run_rounds(disk, 3)
    report(tally, capsys)
    assert tally.acknowledged > 0
    assert (tally.lost, tally.halves) == (0, 0)


@pytest.mark.power
def test_twenty_power_losses_lose_nothing(
    disk: LoopDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = run_rounds(disk, 20)
    report(tally, capsys)
    assert tally.acknowledged > 1_000
    assert (tally.lost, tally.halves) == (0, 0)


@pytest.mark.root
def test_a_log_that_is_not_synced_is_noticed(
    disk: LoopDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sabotage: the disk says that it synced, and did not."""
    tally = run_rounds(disk, 1, skip_syncs=True)
    report(tally, capsys)
    assert tally.lost > 0
