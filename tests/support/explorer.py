"""Visits the crash states of a recorded life of a host and says what is wrong in them."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dosql.clock import SystemRandomness
from dosql.errors import DosqlError
from dosql.host.host import Host
from dosql.host.storage import recover
from dosql.log.node_log import NodeLog
from tests.support.crashes import FileOperation, Files, Image, materialise
from tests.support.histories import Histories, NotServedError, State, recovered_contents
from tests.support.recording import LooseDisk, Recorder
from tests.support.workloads import Client, first_life, second_life, small_settings


@dataclass
class Life:
    """What a host did, and what its tenants must hold."""

    operations: list[FileOperation]
    histories: Histories

    def without(self, lost: Callable[[FileOperation], bool]) -> Life:
        """The same life on a disk that only said that it did some of the operations.

        They are kept as operations that do nothing, so that positions stay what they are.
        """
        nothing = FileOperation("sync_dir", "nowhere")
        return Life([nothing if lost(each) else each for each in self.operations], self.histories)


@dataclass
class Findings:
    """How many states were visited, and what was wrong in which."""

    states: int = 0
    recoveries: int = 0
    """States in which a second crash hit the recovery."""
    wrong: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        shown = "\n".join(self.wrong[:10])
        return (
            f"{self.states} states, {self.recoveries} of them crashes of a recovery:"
            f" {len(self.wrong)} wrong\n{shown}"
        )


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A directory in memory if the system has one; it does not exist yet and goes afterwards."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name) / "data"


async def record_life() -> Life:
    """Run `first_life` on a recording disk, up to and including an orderly end."""
    with fast_directory() as root, Recorder(root) as recorder:
        histories = Histories(lambda: recorder.position)
        host = await Host.start(small_settings(root), disk=recorder.disk, vfs=recorder.vfs)
        try:
            await first_life(host, histories)
        finally:
            await host.close()
        return Life(recorder.operations, histories)


class Explorer:
    """Rebuilds crash states of one life; ``seed`` decides which."""

    def __init__(self, life: Life, seed: int) -> None:
        self._life = life
        self._randomness = random.Random(seed)
        self.findings = Findings()

    def visit(self, positions: Sequence[int], losses: int) -> None:
        """At each position: a kill, and ``losses`` power losses."""
        for position, image in self._images(positions):
            for kind, files in self._crashes(image, losses):
                self._check(f"{kind} after {position} operations", files, position)

    def visit_recoveries(self, positions: Sequence[int], losses: int) -> None:
        """At each position: a kill, and then power losses while the next start recovers."""
        for position, image in self._images(positions):
            recovery = _record_recovery(image.killed())
            moments = sorted(self._randomness.choices(range(len(recovery) + 1), k=losses))
            for moment, after in _at(image.copy(), recovery, moments):
                files = after.powerless(self._randomness)
                what = f"kill after {position} operations, power loss {moment} later"
                self._check(what, files, position)
                self.findings.recoveries += 1

    async def visit_second_lives(self, positions: Sequence[int], losses: int) -> None:
        """At each position: a kill, a whole host that reads and writes, and power losses."""
        for position, image in self._images(positions):
            life = await _record_second_life(self._life, position, image.killed())
            moments = sorted(self._randomness.choices(range(len(life.operations) + 1), k=losses))
            for moment, after in _at(image.copy(), life.operations, moments):
                files = after.powerless(self._randomness)
                what = f"kill after {position} operations, a second life, power loss after {moment}"
                self._check(what, files, position + moment, life.histories)
                self.findings.recoveries += 1

    async def visit_with_hosts(self, positions: Sequence[int]) -> None:
        """At each position: a power loss, and a whole host that reads, writes and reads again."""
        for position, image in self._images(positions):
            files = image.powerless(self._randomness)
            with fast_directory() as root:
                materialise(files, root)
                self.findings.states += 1
                try:
                    found = await _served_contents(root)
                    wrong = self._life.histories.violations(found, position)
                except (DosqlError, AssertionError) as error:
                    wrong = [repr(error)]
            self._note(f"a host after a power loss after {position} operations", wrong)

    # --- one state ----------------------------------------------------------------------------

    def _images(self, positions: Sequence[int]) -> Iterator[tuple[int, Image]]:
        return _at(Image(), self._life.operations, sorted(positions))

    def _crashes(self, image: Image, losses: int) -> Iterator[tuple[str, Files]]:
        yield "kill", image.killed()
        for _ in range(losses):
            yield "power loss", image.powerless(self._randomness)

    def _check(
        self, what: str, files: Files, position: int, histories: Histories | None = None
    ) -> None:
        self.findings.states += 1
        try:
            found = _recover(files)
            wrong = (histories or self._life.histories).violations(found, position)
        except (DosqlError, NotServedError) as error:
            wrong = [repr(error)]
        self._note(what, wrong)

    def _note(self, what: str, wrong: list[str]) -> None:
        if wrong:
            self.findings.wrong.append(f"{what}: {'; '.join(wrong)}")


def _at(
    image: Image, operations: Sequence[FileOperation], positions: Sequence[int]
) -> Iterator[tuple[int, Image]]:
    """The image after so many operations, for each of the (sorted) positions."""
    done = 0
    for position in positions:
        for operation in itertools.islice(operations, done, position):
            image.apply(operation)
        done = position
        yield position, image


def _recover(files: Files) -> dict[str, State]:
    with fast_directory() as root:
        materialise(files, root)
        for directory in ("log", "objects"):
            (root / directory).mkdir(exist_ok=True)
        return recovered_contents(root)


def _record_recovery(files: Files) -> list[FileOperation]:
    with fast_directory() as root:
        materialise(files, root)
        with Recorder(root) as recorder:
            for directory in ("log", "objects"):
                (root / directory).mkdir(exist_ok=True)
            log = NodeLog(
                root / "log",
                disk=recorder.disk,
                randomness=SystemRandomness(),
                segment_bytes=small_settings(root).log_segment_bytes,
            )
            recover(log, root / "objects", recorder.disk)
            log.close()
            return recorder.operations


async def _record_second_life(life: Life, position: int, files: Files) -> Life:
    with fast_directory() as root:
        materialise(files, root)
        with Recorder(root) as recorder:
            histories = life.histories.until(position, lambda: position + recorder.position)
            settings = small_settings(root)
            host = await Host.start(settings, disk=recorder.disk, vfs=recorder.vfs)
            try:
                await second_life(host, histories)
            finally:
                await host.close()
            return Life(recorder.operations, histories)


async def _served_contents(root: Path) -> dict[str, State]:
    """What a whole host answers; it must also take a write, and keep it over a restart."""
    found: dict[str, State] = {}
    for attempt in range(2):
        host = await Host.start(small_settings(root), disk=LooseDisk())
        try:
            histories = Histories(lambda: 0)
            for name in [each.name for each in host.tenants.list("", 100, None).tenants]:
                client = Client(host, histories, name, 3 + attempt)
                state = await client.read()
                if attempt:
                    assert state is not None and len(state) == len(found[name] or ()) + 1
                    continue
                found[name] = state
                if not state:
                    await client.create_table()
                await client.insert()
        finally:
            await asyncio.wait_for(host.close(), 20)
    return found
