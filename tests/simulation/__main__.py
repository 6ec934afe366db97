"""Run one seed, and print what happened: ``python -m tests.simulation SEED``."""

from __future__ import annotations

import sys

from tests.simulation.simulation import simulate


def main() -> int:
    """0 if the seed found nothing."""
    world = simulate(int(sys.argv[1]))
    print(*world.trace, sep="\n")
    print(f"{len(world.violations)} violations")
    return 1 if world.violations else 0


if __name__ == "__main__":
    sys.exit(main())
