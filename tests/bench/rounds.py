"""Throughput: every workload on every target, in interleaved rounds, and the medians of them.

Interleaved, because a shared machine drifts: what is compared was measured seconds apart. Only
ratios within one run mean something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.load import Measured, Tool, put_load
from tests.bench.peers import Loops
from tests.bench.processes import OBJECTS_APP, ServerProcess, start_bare_app, start_dosql
from tests.bench.workloads import TENANTS, Workload, prepare, workloads

_LOOP_SHARE = 0.25
"""Of a round's time for a workload, what a loop in this process gets: it needs no warm-up."""


@dataclass(frozen=True, slots=True)
class Round:
    """One workload, once."""

    dosql: Measured
    flushes: float
    acknowledged: float
    """Writes answered with 200 during the run."""
    bare: Measured | None
    loop: float | None
    loop_synced: float | None


def measure_rounds(
    tool: Tool, rounds: int, seconds: float, directory: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The lines of the table, as JSON."""
    planned = workloads()
    found: list[list[Round]] = [[] for _ in planned]
    loops = Loops(directory / "loops")
    try:
        with (
            start_dosql(directory / "dosql", app=OBJECTS_APP) as server,
            start_bare_app(directory / "bare") as bare,
        ):
            prepare(server)
            bench = _Bench(tool, seconds, directory, server, bare, loops)
            for number in range(rounds):
                for workload, runs in zip(planned, found, strict=True):
                    say(f"round {number + 1}/{rounds}: {workload.name}, {workload.connections}")
                    runs.append(bench.run(workload))
    finally:
        loops.close()
    return [_line(each, runs) for each, runs in zip(planned, found, strict=True)]


class _Bench:
    """Everything that one round needs."""

    def __init__(
        self,
        tool: Tool,
        seconds: float,
        directory: Path,
        server: ServerProcess,
        bare: ServerProcess,
        loops: Loops,
    ) -> None:
        self._tool: Tool = tool
        self._seconds = seconds
        self._directory = directory
        self._server = server
        self._bare = bare
        loop_s = seconds * _LOOP_SHARE
        self._loops: dict[str, Callable[[bool], float]] = {
            "read": lambda _: loops.reads(loop_s),
            "insert": lambda synced: loops.inserts(loop_s, synced=synced),
            "insert-many": lambda synced: loops.inserts(loop_s, synced=synced, databases=TENANTS),
            "bulk": lambda _: loops.bulk(loop_s),
            "result": lambda _: loops.results(loop_s),
        }

    def run(self, workload: Workload) -> Round:
        """The workload on the server and on its peers."""
        before = self._server.metrics()
        measured = self._load(self._server, workload)
        after = self._server.metrics()
        return Round(
            measured,
            after["dosql_flushes_total"] - before["dosql_flushes_total"],
            _writes(after) - _writes(before),
            self._load(self._bare, workload) if workload.bare else None,
            self._loops[workload.loop](False) if workload.loop else None,
            self._loops[workload.loop_synced](True) if workload.loop_synced else None,
        )

    def _load(self, server: ServerProcess, workload: Workload) -> Measured:
        return put_load(
            self._tool,
            server.url,
            workload.requests,
            connections=workload.connections,
            seconds=self._seconds,
            scratch=self._directory,
        )


def _writes(metrics: dict[str, float]) -> float:
    wanted = ('route="/run",status="200"', 'route="/transaction",status="200"')
    return sum(
        value
        for name, value in metrics.items()
        if name.startswith("dosql_requests_total") and any(each in name for each in wanted)
    )


def _line(workload: Workload, runs: list[Round]) -> dict[str, Any]:
    ours = median(each.dosql.per_second for each in runs)
    peers = {
        "bareUvicorn": _median([each.bare.per_second if each.bare else None for each in runs]),
        "apswUnsynced": _median([each.loop for each in runs]),
        "apswSynced": _median([each.loop_synced for each in runs]),
    }
    line: dict[str, Any] = {
        "name": workload.name,
        "connections": workload.connections,
        "requestsPerSecond": round(ours, 1),
        "p50Ms": round(median(each.dosql.p50_ms for each in runs), 3),
        "p99Ms": round(median(each.dosql.p99_ms for each in runs), 3),
        "errors": sum(each.dosql.errors for each in runs),
        "peersPerSecond": {name: rate and round(rate, 1) for name, rate in peers.items()},
        "ratios": {name: rate and float(f"{ours / rate:.3g}") for name, rate in peers.items()},
    }
    if workload.writes:
        writes = sum(each.acknowledged for each in runs)
        line["syncsPer1000Writes"] = round(
            1000 * sum(each.flushes for each in runs) / writes if writes else 0.0, 1
        )
    return line


def _median(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return median(present) if present else None
