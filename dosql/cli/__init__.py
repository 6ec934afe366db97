"""The ``dosql`` command. Nothing heavy is imported before a command is known to need it."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: runs the command line and exits with 0, 1 (failure) or 2 (usage)."""
    if sys.argv[1:2] == ["serve"]:
        from dosql.cli.start import simple_overrides, start

        overrides = simple_overrides(sys.argv[2:])
        if overrides is not None:
            start(overrides)
            return
    from dosql.cli.app import run

    run()
