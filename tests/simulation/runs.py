"""One seed from its first to its last event: what came of it."""

from __future__ import annotations

import logging
import random
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tests.simulation.loop import SimulationLoop
from tests.simulation.model import Violation
from tests.simulation.simulation import Simulation
from tests.simulation.world import World


def simulate(seed: int) -> World:
    """Run one seed: the world knows what happened; without ``violations`` all was well."""
    random.seed(seed)  # pauses between retries
    world = World(seed)
    loop = SimulationLoop(world.clock)
    try:
        with quiet(), unraisable(world):
            loop.run_until_complete(Simulation(loop, world).run())
            loop.close()
    except Violation as violation:
        if str(violation) not in world.violations:
            world.violated(str(violation))
    except Exception as error:
        world.violated(f"{error!r} at {traceback.format_exc(limit=-3)}")
    finally:
        if not loop.is_closed():
            loop.close()
    return world


@contextmanager
def unraisable(world: World) -> Iterator[None]:
    """An exception while memory is freed is one too many; of which seed, is not always sure."""

    def note(failure: sys.UnraisableHookArgs) -> None:
        world.violated(f"unraisable, in {failure.object!r}: {failure.exc_value!r}")

    hook, sys.unraisablehook = sys.unraisablehook, note
    try:
        yield
    finally:
        sys.unraisablehook = hook


@contextmanager
def quiet() -> Iterator[None]:
    """Much fails here on purpose; nobody wants to read of it."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # coroutines that a crash kept waiting
            yield
    finally:
        logging.disable(disabled)
