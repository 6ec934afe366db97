"""What is not throughput: starting, idling, memory, waking, redoing the log."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.generator import percentile
from tests.bench.load import put_load, render
from tests.bench.peers import open_ms
from tests.bench.processes import TOKEN, ServerProcess, start_dosql
from tests.bench.workloads import CREATE, INSERT, tenant_name

_MB = 1024 * 1024
_WAKE_MAX_OPEN = 8
_WAKE_TENANTS = 24
_WAKE_SQL = "SELECT id FROM pages WHERE id = 500"
_LOG_TENANTS = 20
_LOG_VALUE_BYTES = 24 * 1024


def start_ms(directory: Path, count: int) -> dict[str, Any]:
    """From spawning the process to the first answer to a query, on a new data directory. One start
    ahead of them is not counted: it writes the bytecode of what changed since the last."""
    times_ms: list[float] = []
    cpu_ms: list[float] = []
    for number in range(count + 1):
        with start_dosql(directory / f"start-{number}") as server:
            server.call("POST", "/query", {"sql": "SELECT 1"}, "acme")
            times_ms.append((time.perf_counter() - server.spawned_at) * 1000)
            cpu_ms.append(server.cpu_s() * 1000)
    return {
        "medianMs": round(median(times_ms[1:]), 1),
        "maxMs": round(max(times_ms[1:]), 1),
        "medianProcessorMs": round(median(cpu_ms[1:])),
        "count": count,
    }


def idle(directory: Path, tenants: int, seconds: float) -> dict[str, Any]:
    """Memory of open tenants, and what it costs to have them open."""
    with start_dosql(directory / "idle", max_open=tenants + 10) as server:
        server.call("POST", "/run", {"sql": CREATE}, "warm-up")
        before, descriptors = server.rss_bytes(), server.descriptors()
        started = time.perf_counter()
        for number in range(tenants):
            server.call("POST", "/run", {"sql": CREATE}, tenant_name(number))
        created_s = time.perf_counter() - started
        rss, opened = server.rss_bytes(), server.metrics()["dosql_awake_objects"]
        descriptors = server.descriptors() - descriptors
        used = server.cpu_s()
        started = time.perf_counter()
        time.sleep(seconds)
        share = (server.cpu_s() - used) / (time.perf_counter() - started)
        return {
            "openTenants": int(opened),
            "createdPerSecond": round(tenants / created_s, 1),
            "rssKbPerTenant": round((rss - before) / tenants / 1024, 1),
            "descriptorsPerTenant": round(descriptors / tenants, 2),
            "rssMb": round(rss / _MB, 1),
            "idleCpuPercent": round(100 * share, 2),
            "idleSeconds": seconds,
        }


def wake(directory: Path, samples: int) -> dict[str, Any]:
    """First answer of a 1 MB database that is not open; another one makes room for it."""
    with start_dosql(directory / "wake", max_open=_WAKE_MAX_OPEN) as server:
        for number in range(_WAKE_TENANTS):
            _fill_megabyte(server, tenant_name(number))
        size = server.call("GET", f"/admin/tenants/{tenant_name(0)}")["sizeBytes"]
        wakes = server.metrics()["dosql_wakes_total"]
        times_s = []
        for number in range(samples):
            started = time.perf_counter()
            server.call("POST", "/query", {"sql": _WAKE_SQL}, tenant_name(number % _WAKE_TENANTS))
            times_s.append(time.perf_counter() - started)
        woken = server.metrics()["dosql_wakes_total"] - wakes
        awake_s = []
        for _ in range(samples):
            started = time.perf_counter()
            server.call("POST", "/query", {"sql": _WAKE_SQL}, tenant_name(0))
            awake_s.append(time.perf_counter() - started)
    times_s.sort()
    awake_s.sort()
    files = sorted((directory / "wake" / "data").rglob("*.sqlite"), key=os.path.getsize)
    return {
        "sizeBytes": size,
        "p50Ms": round(percentile(times_s, 0.5) * 1000, 3),
        "p99Ms": round(percentile(times_s, 0.99) * 1000, 3),
        "samples": samples,
        "wakes": int(woken),
        "awakeP50Ms": round(percentile(awake_s, 0.5) * 1000, 3),
        "apswOpenP50Ms": round(open_ms(files[-1], _WAKE_SQL, samples), 3),
    }


def _fill_megabyte(server: ServerProcess, tenant: str) -> None:
    for sql in (
        "CREATE TABLE pages(id INTEGER PRIMARY KEY, value BLOB)",
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
            INSERT INTO pages SELECT i, randomblob({_MB // 1000}) FROM n""",
    ):
        server.call("POST", "/run", {"sql": sql}, tenant)


def redo(directory: Path, log_bytes: int) -> dict[str, Any]:
    """Start after a kill with so many bytes in the commit log, beside the start after that."""
    where = directory / "redo"
    log_bytes_max = 4 * log_bytes
    requests = [_large_insert(tenant_name(number)) for number in range(_LOG_TENANTS)]
    with start_dosql(where, log_bytes_max=log_bytes_max) as server:
        for number in range(_LOG_TENANTS):
            server.call("POST", "/run", {"sql": CREATE}, tenant_name(number))
        while server.metrics()["dosql_log_bytes"] < log_bytes:
            put_load("own", server.url, requests, connections=16, seconds=0.2, scratch=directory)
        written = server.metrics()["dosql_log_bytes"]
        server.stop(signal.SIGKILL)
    after_kill, next_start = (_start_and_ask(where, log_bytes_max) for _ in range(2))
    return {
        "logMb": round(written / _MB, 1),
        "startMs": round(after_kill, 1),
        "startWithoutMs": round(next_start, 1),
        "redoMs": round(after_kill - next_start, 1),
    }


def _large_insert(tenant: str) -> bytes:
    value = base64.b64encode(os.urandom(_LOG_VALUE_BYTES)).decode()
    body = json.dumps({"sql": INSERT, "params": [value]}).encode()
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "application/json",
        "X-Tenant-ID": tenant,
    }
    return render("/run", body, headers)


def _start_and_ask(directory: Path, log_bytes_max: int) -> float:
    with start_dosql(directory, log_bytes_max=log_bytes_max) as server:
        server.call("POST", "/query", {"sql": "SELECT count(*) FROM items"}, tenant_name(0))
        return (time.perf_counter() - server.spawned_at) * 1000


def probe_all(
    directory: Path,
    *,
    starts: int,
    tenants: int,
    idle_s: float,
    wakes: int,
    log_bytes: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All probes, one after the other."""
    say("starts")
    found: dict[str, Any] = {"start": start_ms(directory, starts)}
    say(f"{tenants} open tenants")
    found["idle"] = idle(directory, tenants, idle_s)
    say("wakes")
    found["wake"] = wake(directory, wakes)
    say("redo of the log")
    found["redo"] = redo(directory, log_bytes)
    return found
