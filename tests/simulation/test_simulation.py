"""Seeded interleavings of everything that can happen to objects, against a plain model.

README.md in this folder says what happens and what is checked. A failure names its seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.batch import find, run_seeds
from tests.simulation.sabotage import VARIANTS

SEEDS = 2_000
SEEDS_NIGHTLY = 100_000
SEEDS_TO_FIND_MAX = 400
"""Within so many every sabotage must be found; most are by the first."""
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_two_thousand_seeds_keep_every_promise() -> None:
    assert run_seeds(0, SEEDS) == []


@pytest.mark.nightly
def test_very_many_seeds_keep_every_promise() -> None:
    assert run_seeds(SEEDS, SEEDS_NIGHTLY) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", VARIANTS)
def test_sabotage_is_found(variant: str) -> None:
    found = find(variant, SEEDS_TO_FIND_MAX)
    assert found is not None
    print(f"{variant}: {found}")


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
