"""Many seeds, on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.runs import simulate
from tests.simulation.sabotage import VARIANTS

CHUNK = 50
"""Seeds that a process runs at a time."""
CHUNK_TO_FIND = 10
"""The same in a broken variant, of which a few seeds are enough."""
FOUND_MAX = 10
"""So many failures are enough to look at."""


@dataclass
class Outcome:
    """Of some seeds."""

    found: list[str] = field(default_factory=list)
    """What was wrong, each with the command that shows it again; empty if all is well."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often each thing happened."""

    def add(self, other: Outcome) -> None:
        self.found += other.found
        self.counts += other.counts


def run_seeds(first: int, count: int) -> Outcome:
    """Run ``count`` seeds; after FOUND_MAX failures it stops early."""
    outcome = Outcome()
    for part in _parts(first, count, None):
        outcome.add(part)
        if len(outcome.found) >= FOUND_MAX:
            break
    return outcome


def find(variant: str, first: int, seeds_max: int) -> str | None:
    """The first thing that ``seeds_max`` seeds find in a broken variant of the product."""
    for part in _parts(first, seeds_max, variant):
        if part.found:
            return part.found[0]
    return None


def _parts(first: int, count: int, variant: str | None) -> Iterator[Outcome]:
    """In the order of the seeds."""
    context = multiprocessing.get_context("spawn")
    chunk = CHUNK if variant is None else CHUNK_TO_FIND
    starts = range(first, first + count, chunk)
    sizes = [min(chunk, first + count - start) for start in starts]
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as pool:
        try:
            yield from pool.map(partial(_run, variant=variant), starts, sizes)
        finally:
            pool.shutdown(cancel_futures=True)


def _run(first: int, count: int, variant: str | None) -> Outcome:
    outcome = Outcome()
    with VARIANTS[variant]() if variant else nullcontext():
        for seed in range(first, first + count):
            world = simulate(seed)
            outcome.counts += world.counts
            if world.violations:
                command = f"python -m tests.simulation {seed} {variant or ''}".strip()
                outcome.found.append(f"seed {seed}: {world.violations[0]} (again: {command})")
                if variant:
                    break
    return outcome
