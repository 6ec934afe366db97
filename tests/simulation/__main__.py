"""Run one seed, and print what happened."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

from tests.simulation.runs import simulate
from tests.simulation.sabotage import VARIANTS


def main() -> int:
    """0 if the seed found nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("variant", nargs="*", help=f"a broken product: {', '.join(VARIANTS)}")
    arguments = parser.parse_args()
    variant = " ".join(arguments.variant)
    if variant and variant not in VARIANTS:
        parser.error(f"there is no variant {variant!r}")
    with VARIANTS[variant]() if variant else nullcontext():
        world = simulate(arguments.seed)
    print(*world.trace, sep="\n")
    print(f"seed {arguments.seed}: {len(world.violations)} violations, {dict(world.counts)}")
    return 1 if world.violations else 0


if __name__ == "__main__":
    sys.exit(main())
