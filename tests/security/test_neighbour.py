"""A neighbour on the same server while a tenant tries the whole attack table."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from dosql.sqlite.priority import STEPS, give_way
from tests.security.sql_probes import PROBES
from tests.support.server import ServerProcess

_QUIET_REQUESTS = 400
_SERVED_MIN = 20
"""While one statement takes all of its 5 s; a loop that it held would serve none."""
_STATS_AFTER_NAME = 2
_NICE = 18 - _STATS_AFTER_NAME
"""Place of the nice value in /proc/PID/task/TID/stat, behind the name of the thread."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities here")


def attack(url: str, token: str, tenant: str) -> tuple[list[int], float, float]:
    """The whole table, then what is endless. Statuses, and when the last one began and ended, on
    the clock that all processes share."""
    headers = {"Authorization": f"Bearer {token}", "X-Tenant-ID": tenant}
    statuses: list[int] = []
    with httpx2.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        for probe in PROBES:
            if "\0" in probe.sql or probe.row.startswith("24"):
                continue  # those run into their deadline on a worker thread: below
            statuses.append(http.post("/query", json={"sql": probe.sql}).status_code)
        endless = next(each.sql for each in PROBES if each.row.startswith("24"))
        began = time.monotonic()
        statuses.append(http.post("/query", json={"sql": endless}).status_code)
        return statuses, began, time.monotonic()


def test_a_neighbour_is_served_while_the_attack_table_runs(shared_server: ServerProcess) -> None:
    """The figures are printed; what is asserted does not depend on how busy the machine is."""
    attacker, neighbour = shared_server.new_tenant(), shared_server.new_tenant()
    shared_server.sql(neighbour, "run", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    shared_server.sql(neighbour, "run", "INSERT INTO t (v) VALUES ('kept')")
    for sql in (
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT UNIQUE)",
        "CREATE TABLE long (v)",
        "INSERT INTO long VALUES (printf('%.*c', 500000, 'a'))",
    ):
        assert shared_server.sql(attacker, "run", sql).status == 200

    def read() -> tuple[float, float]:
        started = time.monotonic()
        reply = shared_server.sql(neighbour, "query", "SELECT v FROM t WHERE id = ?", [1])
        assert reply.json() == {"rows": [{"v": "kept"}]}
        return started, time.monotonic()

    # A process of its own: in a thread of this one it would slow down the reads itself.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as processes:
        processes.submit(int).result()  # it has started
        quiet = [read() for _ in range(_QUIET_REQUESTS)]
        under_way = processes.submit(attack, shared_server.url, shared_server.admin_token, attacker)
        busy: list[tuple[float, float]] = []
        while not under_way.done() or len(busy) < _QUIET_REQUESTS:
            busy.append(read())
        statuses, began, ended = under_way.result()
    before, after = _p99(quiet), _p99(busy)
    print(
        f"neighbour p99: quiet {before:.2f} ms, under {len(statuses)} attacks {after:.2f} ms, "
        f"ratio {after / before:.1f}; p50 {_p50(quiet):.2f} and {_p50(busy):.2f} ms; "
        f"worst {max(_ms(busy)):.0f} ms; {len(busy)} reads"
    )
    assert 500 not in statuses
    assert 503 not in statuses
    served = [one for one in busy if began < one[0] and one[1] < ended]
    assert len(served) >= _SERVED_MIN, f"{len(served)} reads in {ended - began:.1f} s"


def _ms(times: list[tuple[float, float]]) -> list[float]:
    return [(end - start) * 1e3 for start, end in times]


def _p50(times: list[tuple[float, float]]) -> float:
    return statistics.median(_ms(times))


def _p99(times: list[tuple[float, float]]) -> float:
    return statistics.quantiles(_ms(times), n=100)[98]


# --- priorities -------------------------------------------------------------------------------


@linux
def test_a_thread_that_gives_way_is_alone_in_it() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1, initializer=give_way) as threads:
        for _ in range(2):  # not lower with each piece of work
            assert threads.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == before + STEPS
        with ThreadPoolExecutor(1, initializer=give_way) as others:
            assert others.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == before + STEPS
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def priorities(server: ServerProcess) -> dict[int, int]:
    """Of each thread of the server."""
    found: dict[int, int] = {}
    for task in Path(f"/proc/{server.process.pid}/task").iterdir():
        values = (task / "stat").read_text().rpartition(")")[2].split()
        found[int(task.name)] = int(values[_NICE])
    return found


def a_long_statement(server: ServerProcess, tenant: str) -> None:
    sql = "SELECT length(upper(printf('%.*c', 900000, 'a')) || lower(printf('%.*c', 900000, 'b')))"
    assert server.sql(tenant, "query", sql).status == 200


def a_password(server: ServerProcess, tenant: str) -> None:
    body = {"email": "a@example.com", "password": "wrong password"}
    assert server.request("POST", "/auth/login", json=body, tenant=tenant).status == 401


@linux
@pytest.mark.parametrize("work", [a_long_statement, a_password])
def test_what_computes_beside_the_event_loop_gives_way_to_it(
    work: Callable[[ServerProcess, str], None], server: ServerProcess
) -> None:
    tenant = server.new_tenant()
    normal = priorities(server)[server.process.pid]
    assert set(priorities(server).values()) == {normal}
    work(server, tenant)
    after = priorities(server)
    assert after[server.process.pid] == normal
    assert set(after.values()) == {normal, normal + STEPS}
