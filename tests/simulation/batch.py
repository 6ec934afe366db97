"""Many seeds, on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial

from tests.simulation.sabotage import VARIANTS
from tests.simulation.simulation import simulate

CHUNK = 50
"""Seeds that a process runs at a time."""


def run_seeds(first: int, count: int) -> list[str]:
    """What the seeds found, each with the command that shows it again; empty if all is well."""
    with _pool() as pool:
        chunks = pool.map(partial(_run, count=CHUNK), range(first, first + count, CHUNK))
        return [found for chunk in chunks for found in chunk]


def find(variant: str, seeds_max: int) -> str | None:
    """The first thing that the seeds from 0 find in a broken variant of the product."""
    with _pool() as pool:
        for found in pool.map(
            partial(_run, count=CHUNK, variant=variant), range(0, seeds_max, CHUNK)
        ):
            if found:
                pool.shutdown(cancel_futures=True)
                return found[0]
    return None


def _run(first: int, *, count: int, variant: str | None = None) -> list[str]:
    return list(_found(first, count, variant))


def _found(first: int, count: int, variant: str | None) -> Iterator[str]:
    with VARIANTS[variant]() if variant else nullcontext():
        for seed in range(first, first + count):
            violations = simulate(seed).violations
            if violations:
                yield f"seed {seed}: {violations[0]} (python -m tests.simulation {seed})"
                if variant:
                    return


def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context)
