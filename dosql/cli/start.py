"""The short way into the server.

Typer and what it imports take over 100 ms, half as long as all that the server needs before its
first answer. So the usual ``dosql serve --flag value ...`` is read here, and only what is not
that simple (``--help``, a misspelt flag) goes through `dosql.cli.serve`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence

from dosql.cli.late_package import enter_late

FLAGS = frozenset(
    {
        "--accept-catalog-loss",
        "--admin-listen",
        "--app",
        "--base-domain",
        "--bucket",
        "--changes",
        "--data-dir",
        "--default-tenant",
        "--durability",
        "--idle-seconds",
        "--listen",
        "--log-level",
        "--max-open",
        "--migrations",
        "--rate-limits",
        "--reload",
        "--s3-endpoint",
        "--tenant-creation",
    }
)
_SWITCHES = frozenset({"--reload"})
"""Flags without a value."""


def simple_overrides(arguments: Sequence[str]) -> dict[str, str] | None:
    """Settings by name, from the arguments after ``serve``; None if they need a closer look."""
    overrides: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in FLAGS:
            return None
        if flag in _SWITCHES:
            if equals:
                return None
            value = "true"
        elif not equals:
            value = next(words, "-")
            if value.startswith("-"):
                return None
        overrides[flag[2:].replace("-", "_")] = value
    return overrides


def start(overrides: Mapping[str, str]) -> None:
    """Serve until told to stop. Exits with 1 if the server's packages are not installed."""
    enter_late("uvicorn")
    gc.disable()  # what an import makes stays: there is no garbage to look for
    try:
        from server import run
    except ModuleNotFoundError as exc:
        missing = f"{exc.name} is not installed; the server needs: pip install 'dosql[server]'"
        print(f"dosql: {missing}", file=sys.stderr)
        raise SystemExit(1) from None
    gc.freeze()
    gc.enable()
    run.serve(overrides)
