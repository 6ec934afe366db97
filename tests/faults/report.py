"""Prints what a recovery costs and what damage to the log leads to.

Run it as ``python -m tests.faults.report``. Nothing is asserted here:
``tests/log/test_node_log.py`` does that.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dosql.clock import SystemRandomness
from dosql.errors import CorruptError
from dosql.host.storage import recover
from dosql.log.disk import RealDisk
from dosql.log.node_log import NodeLog
from dosql.log.records import Batch, ObjectKey
from dosql.pages import PageSet
from tests.support.recording import LooseDisk

PAGE = 4096
PAGES_PER_BATCH = 2
"""As many as a single insert into a table with one index changes."""
BATCHES_PER_GROUP = 8
LOG_BYTES = 64 * 1024 * 1024


def write_log(directory: Path, log_bytes: int, objects: int) -> int:
    """A log of that size as a killed process leaves it; how many commits are in it."""
    randomness = random.Random(objects)
    (directory / "log").mkdir(parents=True)
    log = NodeLog(directory / "log", disk=LooseDisk(), randomness=SystemRandomness())
    txids = [0] * objects
    commits = 0
    while log.size_bytes < log_bytes:
        group: list[Batch] = []
        for number in randomness.sample(range(objects), min(objects, BATCHES_PER_GROUP)):
            txids[number] += 1
            pages = {1 + commits % 40: randomness.randbytes(PAGE), 41: randomness.randbytes(PAGE)}
            key = ObjectKey(number.to_bytes(32, "big"), 1)
            group.append(Batch(key, txids[number], 0, PageSet(PAGE, 41, pages)))
            commits += 1
        log.append(group)
    log.close()
    return commits


def recovery(directory: Path) -> tuple[float, int, int]:
    """Recover; seconds, records redone, objects found damaged."""
    began = time.perf_counter()
    log = NodeLog(directory / "log", disk=RealDisk(), randomness=SystemRandomness())
    done = recover(log, directory / "objects", RealDisk())
    log.close()
    return time.perf_counter() - began, done.records, len(done.damaged)


def print_replays(home: Path, log_bytes: int) -> None:
    print(f"Recovery of a log of {log_bytes >> 20} MB, syncs included:")
    print(f"{'objects':>10} {'commits':>10} {'seconds':>10} {'MB/s':>8}")
    for objects in (1, 100, 1_000):
        directory = home / f"replay-{objects}"
        commits = write_log(directory, log_bytes, objects)
        seconds, _, _ = recovery(directory)
        rate = log_bytes / seconds / 1e6
        print(f"{objects:>10} {commits:>10} {seconds:>10.2f} {rate:>8.0f}")
        shutil.rmtree(directory)


def segments(directory: Path) -> list[Path]:
    return sorted((directory / "log").glob("*.log"))


def tear(directory: Path) -> None:
    """Cut the newest group short, as a power loss before its sync does."""
    newest = segments(directory)[-1]
    with newest.open("r+b") as file:
        file.truncate(newest.stat().st_size - 700)


def flip(offset: int) -> Callable[[Path], None]:
    """Flip one bit of the oldest segment."""

    def damage(directory: Path) -> None:
        with segments(directory)[0].open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    return damage


def lose(which: int) -> Callable[[Path], None]:
    """Remove a segment."""
    return lambda directory: segments(directory)[which].unlink()


def lose_manifest(directory: Path) -> None:
    """Remove the list of segments."""
    (directory / "log" / "manifest").unlink()


def print_damages(home: Path, log_bytes: int) -> None:
    origin = home / "origin"
    write_log(origin, log_bytes, 20)
    _, whole, _ = recovery(Path(shutil.copytree(origin, home / "whole")))
    damages: list[tuple[str, Callable[[Path], None]]] = [
        ("none", lambda directory: None),
        ("newest group torn", tear),
        ("bit in a page", flip(1_000)),
        ("bit in a record header", flip(60)),
        ("bit in a group header", flip(10)),
        ("oldest segment missing", lose(0)),
        ("newest segment missing", lose(-1)),
        ("manifest missing", lose_manifest),
    ]
    print(f"\nDamage to a log of {whole} commits of 20 objects:")
    for name, damage in damages:
        directory = Path(shutil.copytree(origin, home / "damaged"))
        damage(directory)
        try:
            _, records, damaged = recovery(directory)
            outcome = f"starts: {whole - records} commits dropped, {damaged} objects not served"
        except CorruptError as error:
            outcome = f"refuses to start ({error.code})"
        print(f"  {name:<26}{outcome}")
        shutil.rmtree(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=LOG_BYTES >> 20, help="size of the log")
    log_bytes = parser.parse_args().mb << 20
    with tempfile.TemporaryDirectory() as home:
        print_replays(Path(home), log_bytes)
        print_damages(Path(home), min(log_bytes, 40 << 20))


if __name__ == "__main__":
    main()
