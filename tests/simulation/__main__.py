"""Run one seed, and print what happened: ``python -m tests.simulation SEED [VARIANT]``.

VARIANT is one of the broken products in `sabotage`.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

from tests.simulation.sabotage import VARIANTS
from tests.simulation.simulation import simulate


def main() -> int:
    """0 if the seed found nothing."""
    seed = int(sys.argv[1])
    variant = " ".join(sys.argv[2:])
    with VARIANTS[variant]() if variant else nullcontext():
        world = simulate(seed)
    print(*world.trace, sep="\n")
    print(f"seed {seed}: {len(world.violations)} violations")
    return 1 if world.violations else 0


if __name__ == "__main__":
    sys.exit(main())
