"""Every crash point: whatever a crash leaves on the disk, what was acknowledged is there.

A life of a host is recorded as one ordered list of file operations, SQLite's own included. At
its positions the disk is rebuilt as a kill, or a power loss, may leave it, and recovered. Each
tenant must then hold one of the states between the last acknowledged and the last attempted one:
nothing lost, nothing half, nothing from a deleted life; and the start is never refused.

``DOSQL_FAULT_SEED`` repeats a choice of states.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from dosql.objects.instance import Instance
from tests.support.crashes import FileOperation
from tests.support.explorer import Explorer, Life, record_life

SEED = int(os.environ.get("DOSQL_FAULT_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture(autouse=True)
def small_wals(monkeypatch: pytest.MonkeyPatch) -> None:
    """WALs are checkpointed while the object is in use, as long ones are."""
    monkeypatch.setattr("dosql.host.maintenance.WAL_BYTES_MAX", 64 * 1024)


def sample(life: Life, count: int, seed: int) -> list[int]:
    """Positions: most of them where something other than SQLite's WAL was written."""
    operations = life.operations
    telling = [
        position
        for position, each in enumerate(operations, 1)
        if not each.path.endswith("-wal") or each.kind != "write"
    ]
    randomness = random.Random(seed)
    some = randomness.sample(telling, min(len(telling), count * 4 // 5))
    return some + randomness.choices(range(len(operations) + 1), k=count - len(some))


async def test_a_sample_of_crash_states(capsys: pytest.CaptureFixture[str]) -> None:
    life = await record_life()
    explorer = Explorer(life, SEED)
    explorer.visit(sample(life, 130, SEED), losses=1)
    explorer.visit_recoveries(sample(life, 25, SEED + 1), losses=3)
    await explorer.visit_second_lives(sample(life, 4, SEED + 2), losses=8)
    await explorer.visit_with_hosts(sample(life, 12, SEED + 3))
    with capsys.disabled():
        print(f"\n{len(life.operations)} operations, seed {SEED}: {explorer.findings}")
    assert not explorer.findings.wrong, f"seed {SEED}: {explorer.findings}"


@pytest.mark.nightly
async def test_all_crash_points(capsys: pytest.CaptureFixture[str]) -> None:
    life = await record_life()
    explorer = Explorer(life, SEED)
    everywhere = range(len(life.operations) + 1)
    explorer.visit(everywhere, losses=8)
    explorer.visit_recoveries(everywhere[::5], losses=5)
    await explorer.visit_second_lives(sample(life, 40, SEED), losses=20)
    await explorer.visit_with_hosts(sample(life, 200, SEED + 1))
    with capsys.disabled():
        print(f"\n{len(life.operations)} operations, seed {SEED}: {explorer.findings}")
    assert not explorer.findings.wrong, f"seed {SEED}: {explorer.findings}"
    assert explorer.findings.states >= 8_000


# --- sabotage: what the test above must find --------------------------------------------------


def found_in(life: Life, count: int = 60) -> list[str]:
    """What is wrong in a sample of the crash states."""
    explorer = Explorer(life, SEED)
    explorer.visit(sample(life, count, SEED), losses=2)
    return explorer.findings.wrong


async def test_acknowledging_before_the_flush_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def open_at_once(self: Instance, txid: int) -> None:
        pass

    monkeypatch.setattr(Instance, "durable", open_at_once)
    monkeypatch.setattr(Instance, "flush", _settled)
    assert found_in(await record_life())


async def _settled(self: Instance) -> None:
    """The original `Instance.flush`, on the flush and not on the sabotaged gate."""
    while self.bookmark.txid != self.durable_txid:
        assert self._flush is not None
        await self._flush.wait()


def _log_sync(operation: FileOperation) -> bool:
    return operation.kind == "sync" and operation.path.endswith(".log")


def _object_sync(operation: FileOperation) -> bool:
    return operation.kind == "sync" and operation.path.endswith(".sqlite")


def _directory_sync(operation: FileOperation) -> bool:
    return operation.kind == "sync_dir"


@pytest.mark.parametrize("lost", [_log_sync, _object_sync, _directory_sync])
async def test_a_skipped_sync_is_noticed(lost: Callable[[FileOperation], bool]) -> None:
    """Of the log; of an object's file before the log is cut behind it; of a directory."""
    life = await record_life()
    assert found_in(life.without(lost))
