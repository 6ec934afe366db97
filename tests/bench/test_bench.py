"""The benchmark runs and says what it must; how fast anything is, no test asserts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench.bench import Scale, measure
from tests.bench.load import Tool, available_tool, put_load
from tests.bench.processes import start_dosql
from tests.bench.report import text_of
from tests.bench.workloads import CREATE, tenant_name, workloads

SMALLEST = Scale(
    rounds=1, seconds=0.05, starts=1, tenants=5, idle_s=0.1, wakes=5, log_bytes=1024 * 1024
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run for all tests, with the generator that every machine has."""
    return measure(SMALLEST, "own", tmp_path_factory.mktemp("bench"))


def test_the_smallest_benchmark_measures_everything_it_names(result: dict[str, Any]) -> None:
    """The shape of what ``--json`` prints."""
    json.dumps(result)
    assert [each["name"] for each in result["workloads"]] == [each.name for each in workloads()]
    for line in result["workloads"]:
        assert line["errors"] == 0, line
        assert line["requestsPerSecond"] > 0, line
        assert line["p50Ms"] <= line["p99Ms"], line
        compared = [name for name, rate in line["peersPerSecond"].items() if rate is not None]
        assert compared, f"{line['name']} is compared with nothing"
        assert all(line["ratios"][name] > 0 for name in compared)
    assert set(result["process"]) == {"start", "idle", "wake", "redo"}
    assert result["process"]["idle"]["openTenants"] >= 5
    assert result["process"]["wake"]["wakes"] == 5, "each sample must be a wake"
    assert result["process"]["wake"]["sizeBytes"] > 1_000_000
    assert result["process"]["redo"]["logMb"] >= 1


def test_writes_that_wait_together_share_a_sync(result: dict[str, Any]) -> None:
    """Not a time: how often the disk was asked, per acknowledged write."""
    inserts = {
        each["connections"]: each for each in result["workloads"] if each["name"] == "insert"
    }
    assert inserts[1]["syncsPer1000Writes"] >= 1_000
    assert inserts[64]["syncsPer1000Writes"] < inserts[1]["syncsPer1000Writes"] / 4


@pytest.mark.parametrize("tool", ["wrk", "own"])
def test_both_generators_count_the_same_way(tool: Tool, tmp_path: Path) -> None:
    """The server's own count of answers agrees with the generator's."""
    if tool == "wrk" and available_tool() != "wrk":
        pytest.skip("wrk is not installed")
    insert = next(each for each in workloads() if each.name == "insert")
    with start_dosql(tmp_path) as server:
        server.call("POST", "/run", {"sql": CREATE}, tenant_name(0))
        measured = put_load(
            tool, server.url, insert.requests, connections=4, seconds=1, scratch=tmp_path
        )
        count = server.call("POST", "/query", {"sql": "SELECT count(*) AS n FROM items"}, "bench-0")
    rows = count["rows"][0]["n"]
    assert measured.errors == 0
    assert measured.requests <= rows <= measured.requests + 2 * 4, "but for those under way"


def test_the_report_names_every_figure() -> None:
    """The table for people shows what the JSON has, without measuring again."""
    line = {
        "name": "insert",
        "connections": 64,
        "requestsPerSecond": 1234.5,
        "p50Ms": 1.0,
        "p99Ms": 2.0,
        "errors": 3,
        "peersPerSecond": {"bareUvicorn": 5000.0, "apswUnsynced": None, "apswSynced": 400.0},
        "ratios": {"bareUvicorn": 0.25, "apswUnsynced": None, "apswSynced": 3.09},
        "syncsPer1000Writes": 17.0,
    }
    process = {"start": {"medianMs": 250.0}}
    text = text_of({"conditions": {"python": "3"}, "workloads": [line], "process": process})
    for part in ("insert (3 errors!)", "1,234", "5,000 (0.25)", "400 (3.09)", "17.0", "250.0"):
        assert part in text
