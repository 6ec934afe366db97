"""The ``dosql`` command. Nothing heavy is imported before a command is known to need it."""

from __future__ import annotations


def main() -> None:
    """Entry point: runs the command line and exits with 0, 1 (failure) or 2 (usage)."""
    from dosql.cli.app import run

    run()
