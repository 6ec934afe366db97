"""A full disk and a failing one: every refusal is an honest one, and nothing is lost by it.

The N-th file operation of a host fails, whichever it is. Then each error is one of "nothing was
written" and "outcome unknown"; what was refused did not happen, what was acknowledged did; and
the host serves again, without a restart and with one.

``DOSQL_FAULT_SEED`` repeats a choice of faults.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dosql.errors import QuotaError, UnavailableError
from dosql.host.host import Host
from dosql.log.disk import DiskFile
from tests.support.clients_under_faults import life_under_faults, until_answered
from tests.support.explorer import Explorer, Life, fast_directory
from tests.support.faulty import FaultyStorage
from tests.support.histories import Histories
from tests.support.hosts import crashed
from tests.support.recording import LooseDisk, Recorder, RecordingDisk
from tests.support.workloads import Client, first_life, small_settings

SEED = int(os.environ.get("DOSQL_FAULT_SEED", random.SystemRandom().randrange(2**32)))


@pytest.fixture(autouse=True)
def small_wals(monkeypatch: pytest.MonkeyPatch) -> None:
    """WALs are checkpointed while the object is in use, as long ones are."""
    monkeypatch.setattr("dosql.host.maintenance.WAL_BYTES_MAX", 64 * 1024)


@dataclass(frozen=True)
class Fault:
    """``times`` operations fail with ``code`` after ``after`` that do not."""

    after: int
    code: int
    times: int

    def __str__(self) -> str:
        return f"{errno.errorcode[self.code]} x{self.times} after {self.after}"


@dataclass
class Tally:
    """What became of the calls over all faults."""

    faults: int = 0
    failed_operations: int = 0
    refused: int = 0
    unknown: int = 0
    kinds: set[str] | None = None


async def survive(fault: Fault, tally: Tally) -> None:
    """One life with one fault. Raises if anything about it is wrong."""
    with fast_directory() as root, FaultyStorage() as storage:
        ticks = iter(range(10**9))
        histories = Histories(lambda: next(ticks))
        settings = small_settings(root)
        host = await Host.start(settings, disk=storage.disk, vfs=storage.vfs)
        try:
            storage.fail(fault.after, fault.code, fault.times)
            if fault.times > 100:  # until it is healed: nobody could be answered before
                asyncio.get_running_loop().call_later(0.15, storage.heal)
            clients = await life_under_faults(host, histories)
            storage.heal()
            for each in clients:
                await each.read()
                if each.client.history.state is not None:
                    await until_answered(each.client.create_table)
                    await each.client.insert()
        finally:
            storage.heal()
            if fault.after % 2:
                await asyncio.wait_for(host.close(), 20)
            else:
                await crashed(host)
        await check_restart(root, histories)
        tally.faults += 1
        tally.failed_operations += len(storage.failed)
        tally.refused += sum(each.refusals for each in clients)
        tally.unknown += sum(each.unknown for each in clients)
        if tally.kinds is not None:
            tally.kinds.update(each.split()[0] for each in storage.failed)


async def check_restart(root: Path, histories: Histories) -> None:
    """A new host holds exactly what the one before it answered."""
    host = await Host.start(small_settings(root), disk=LooseDisk())
    try:
        found = {}
        for name in [each.name for each in host.tenants.list("", 100, None).tenants]:
            found[name] = await Client(host, histories, name, 9).read()
        assert not (wrong := histories.violations(found, 10**9)), wrong
    finally:
        await host.close()


async def operations_of_a_life() -> int:
    """How many operations there are to fail."""
    with fast_directory() as root, FaultyStorage() as storage:
        host = await Host.start(small_settings(root), disk=storage.disk, vfs=storage.vfs)
        before = storage.count
        await life_under_faults(host, Histories(lambda: 0))
        count = storage.count - before
        await host.close()
        return count


def faults(count: int, seed: int, operations: int) -> Iterator[Fault]:
    """A seeded choice."""
    randomness = random.Random(seed)
    for after in sorted(randomness.sample(range(operations), min(count, operations))):
        code = randomness.choice((errno.EIO, errno.ENOSPC))
        yield Fault(after, code, randomness.choice((1, 1, 2, 5, 10**9)))


async def survive_all(chosen: list[Fault]) -> Tally:
    tally = Tally(kinds=set())
    for fault in chosen:
        try:
            await survive(fault, tally)
        except Exception as error:
            error.add_note(f"fault: {fault}, seed {SEED}")
            raise
    return tally


async def test_a_sample_of_failing_operations(capsys: pytest.CaptureFixture[str]) -> None:
    operations = await operations_of_a_life()
    tally = await survive_all(list(faults(40, SEED, operations)))
    with capsys.disabled():
        print(f"\n{operations} operations, seed {SEED}: {tally}")
    assert tally.refused > 0


@pytest.mark.nightly
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("times", [1, 3, 10**9])
async def test_every_failing_operation(
    code: int, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    operations = await operations_of_a_life()
    tally = await survive_all([Fault(after, code, times) for after in range(operations)])
    with capsys.disabled():
        print(f"\n{operations} operations: {tally}")


# --- starts -----------------------------------------------------------------------------------


async def test_a_start_on_a_failing_disk_says_so_and_the_next_one_serves() -> None:
    """Every operation of a recovery fails once; nothing is lost or refused for good."""
    with fast_directory() as origin:
        ticks = iter(range(10**9))
        histories = Histories(lambda: next(ticks))
        host = await Host.start(small_settings(origin), disk=LooseDisk())
        await first_life(host, histories)
        await crashed(host)
        refused = served = 0
        for after in range(10**9):
            with fast_directory() as root, FaultyStorage() as storage:
                shutil.copytree(origin, root)
                storage.fail(after, (errno.EIO, errno.ENOSPC)[after % 2])
                try:
                    host = await Host.start(
                        small_settings(root), disk=storage.disk, vfs=storage.vfs
                    )
                except (UnavailableError, QuotaError):
                    refused += 1
                else:
                    served += 1
                    storage.heal()
                    await host.close()
                await check_restart(root, histories)
                if not storage.failed:
                    break
        assert refused > 20
        assert served > 0


# --- a failed sync ----------------------------------------------------------------------------


class RetryingDisk(RecordingDisk):
    """Sabotage: syncs again what could not be synced, and believes the second answer."""

    def open(self, path: Path, *, create: bool = False) -> DiskFile:
        file = super().open(path, create=create)
        sync = file.sync

        def insist() -> None:
            try:
                sync()
            except OSError:
                sync()

        file.sync = insist  # type: ignore[method-assign]
        return file


async def life_with_failing_syncs(seed: int, *, retry: bool) -> Life:
    """Every ninth sync fails; asked a second time, the system says that all is well."""
    with fast_directory() as root, Recorder(root) as recorder:
        histories = Histories(lambda: recorder.position)
        disk = RetryingDisk(recorder) if retry else recorder.disk
        host = await Host.start(small_settings(root), disk=disk, vfs=recorder.vfs)
        syncs = itertools.count(seed)
        recorder.fails_sync = lambda path: next(syncs) % 9 == 0
        try:
            await life_under_faults(host, histories)
        finally:
            recorder.fails_sync = lambda path: False
            await host.close()
        return Life(recorder.operations, histories)


async def test_after_a_failed_sync_nothing_relies_on_what_it_was_to_make_durable() -> None:
    """The pages of a failed sync are gone, though the system still shows them."""
    for seed in range(SEED, SEED + 3):
        life = await life_with_failing_syncs(seed, retry=False)
        explorer = Explorer(life, seed)
        explorer.visit(range(0, len(life.operations), 10), losses=1)
        assert not explorer.findings.wrong, f"seed {seed}: {explorer.findings}"


async def test_retrying_a_failed_sync_is_noticed() -> None:
    wrong: list[str] = []
    for seed in range(SEED, SEED + 5):
        life = await life_with_failing_syncs(seed, retry=True)
        explorer = Explorer(life, seed)
        explorer.visit(range(0, len(life.operations), 10), losses=1)
        wrong += explorer.findings.wrong
    assert wrong
