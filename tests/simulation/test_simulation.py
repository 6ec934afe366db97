"""Seeded interleavings of everything that can happen to objects, against a plain model.

README.md in this folder says what happens and what is checked. Every run begins at another seed,
unless ``DOSQL_SIMULATION_SEED`` names one; a failure names the seed that shows it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.batch import Outcome, find, run_seeds
from tests.simulation.sabotage import VARIANTS

BASE = int(os.environ.get("DOSQL_SIMULATION_SEED", "584147615"))
"""The same seeds each time: a change is judged by what it changes. Others find what is rare."""
SEEDS = 2_000
SEEDS_NIGHTLY = 50_000
SEEDS_TO_FIND_MAX = 2_000
"""Within so many every sabotage must be found: many times what any of them takes on average, so
that no choice of seeds makes the test fail."""
EXERCISED = {
    "alarms": 0.5,
    "changes lost": 0.5,
    "changes seen outside": 5,
    "crashes": 0.5,
    "disk failures": 0.1,
    "hibernations": 0.5,
    "interleavings": 1,
    "messages": 0.2,
    "resets": 0.05,
    "transactions: commit": 0.2,
    "transactions: raise": 0.1,
    "transactions: roll back": 0.1,
}
"""How often, at the least, each must happen per seed; else the runs show nothing about it."""
ROOT = Path(__file__).parents[2]


def check(outcome: Outcome, seeds: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was found, and enough was looked at."""
    with capsys.disabled():
        print(f"\nseeds {BASE} to {BASE + seeds - 1}: {dict(sorted(outcome.counts.items()))}")
    assert not outcome.found, "\n".join(outcome.found)
    rare = {what: outcome.counts[what] for what in EXERCISED}
    rare = {what: count for what, count in rare.items() if count < EXERCISED[what] * seeds}
    assert not rare, f"too rare in {seeds} seeds: {rare}"


@pytest.mark.timeout(600)
def test_two_thousand_seeds_keep_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """And each of `EXERCISED` happens often enough to mean something."""
    check(run_seeds(BASE, SEEDS), SEEDS, capsys)


@pytest.mark.nightly
def test_fifty_thousand_seeds_keep_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    check(run_seeds(BASE, SEEDS_NIGHTLY), SEEDS_NIGHTLY, capsys)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", VARIANTS)
def test_sabotage_is_found(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = find(variant, BASE, SEEDS_TO_FIND_MAX)
    assert found is not None, f"not within {SEEDS_TO_FIND_MAX} seeds from {BASE}"
    with capsys.disabled():
        print(f"\n{variant}: {found}")


@pytest.mark.parametrize("seed", [3, 27])
def test_a_seed_gives_the_same_run_in_every_process(seed: int) -> None:
    """Else a failure could not be looked at again."""
    runs = {_trace(seed, hash_seed) for hash_seed in ("1", "2")}
    assert len(runs) == 1


def _trace(seed: int, hash_seed: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "tests.simulation", str(seed)],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout
