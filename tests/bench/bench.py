"""How fast dosql is here, beside its ceilings in the same run.

    python -m tests.bench.bench [--quick] [--json] [--generator wrk|own]

A real server process, all middleware on, its access log written to a file. Absolute figures say
as much about the machine as about the program: compare the ratios, and only within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw

from tests.bench.load import Tool, available_tool
from tests.bench.peers import sync_ms
from tests.bench.probes import probe_all
from tests.bench.report import text_of
from tests.bench.rounds import measure_rounds

_MB = 1024 * 1024
_TOOLS = {"wrk": "wrk (one thread)", "own": "own generator (one process, asyncio)"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured; it decides how long that takes and how steady the figures are."""

    rounds: int
    seconds: float
    starts: int
    tenants: int
    idle_s: float
    wakes: int
    log_bytes: int


FULL = Scale(3, 2.0, 7, 500, 5.0, 300, 64 * _MB)
QUICK = Scale(1, 1.0, 3, 50, 1.0, 40, 8 * _MB)


def measure(
    scale: Scale, tool: Tool, directory: Path, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Everything, as JSON; files go to ``directory``."""
    started = time.perf_counter()
    conditions = _conditions(tool, scale, directory)
    lines = measure_rounds(tool, scale.rounds, scale.seconds, directory, say)
    process = probe_all(
        directory,
        starts=scale.starts,
        tenants=scale.tenants,
        idle_s=scale.idle_s,
        wakes=scale.wakes,
        log_bytes=scale.log_bytes,
        say=say,
    )
    conditions["took"] = f"{time.perf_counter() - started:.0f} s"
    return {"conditions": conditions, "workloads": lines, "process": process}


def _conditions(tool: Tool, scale: Scale, directory: Path) -> dict[str, str]:
    names = ("litestar", "uvicorn", "uvloop", "httptools", "msgspec")
    versions = [f"{name} {version(name)}" for name in names]
    median, tail = sync_ms(directory)
    return {
        "python": platform.python_version(),
        "versions": ", ".join([*versions, f"apsw {apsw.apsw_version()}"]),
        "sqlite": apsw.sqlite_lib_version(),
        "machine": f"{os.cpu_count()} cores, {_cpu_model()}, load {os.getloadavg()[0]:.1f}",
        "disk": f"4 KB write and fdatasync {median:.2f} ms, p99 {tail:.2f} ms",
        "generator": f"{_TOOLS[tool]}, keep-alive, closed loop",
        "rounds": f"medians of {scale.rounds} rounds of {scale.seconds:g} s",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast dosql is here.")
    parser.add_argument("--quick", action="store_true", help="less steady, below 40 seconds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--generator", choices=_TOOLS, default=available_tool())
    parser.add_argument(
        "--directory", type=Path, help="where the databases go (default: temporary)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dosql-bench-", dir=options.directory) as directory:
        result = measure(
            QUICK if options.quick else FULL,
            options.generator,
            Path(directory),
            lambda step: print(f"... {step}", file=sys.stderr, flush=True),
        )
    print(json.dumps(result, indent=2) if options.json else text_of(result))


if __name__ == "__main__":
    main()
