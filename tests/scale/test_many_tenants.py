"""Many more tenants than may be open: descriptors and memory follow the cap, not the tenants."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.server import ADMIN_TOKEN, ServerProcess

_THREADS = 16
_CREATE = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT)"
_INSERT = "INSERT INTO notes(body) VALUES (?)"
_SELECT = "SELECT id, body FROM notes ORDER BY id"
_SPARE_DESCRIPTORS = 100
"""For the catalog, the log, the listener and the connections of this test."""
_KB_PER_TENANT_MAX = 10
"""What a tenant that is not open may cost when the server is idle again: its name and key, the
allocator's crumbs, and, for a while after it was written, about half of this for the merging of
its files. An open one: 200. Under way a merge may hold more, whatever the number of tenants."""


@dataclass(frozen=True)
class Footprint:
    """What the process holds, and how many tenants there are."""

    tenants: int
    descriptors: int
    rss_kb: int

    @classmethod
    def of(cls, server: ServerProcess, tenants: int) -> Footprint:
        """From outside, as the operating system sees it."""
        process = psutil.Process(server.process.pid)
        return cls(tenants, process.num_fds(), process.memory_info().rss // 1024)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Clients; more than one, so that wakes and commits of several tenants overlap."""
    with ThreadPoolExecutor(_THREADS) as executor:
        yield executor


@pytest.mark.timeout(300)
def test_two_thousand_tenants_cost_no_more_than_the_open_ones(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """The same with 10,000 and a cap of 500: `test_ten_thousand_tenants...`, nightly."""
    _many_tenants(tmp_path, pool, tenants=2_000, open_max=100, settled_at=500)


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
def test_ten_thousand_tenants_cost_no_more_than_the_open_ones(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    """Each is created and written to; every wake beyond the cap puts another to sleep."""
    _many_tenants(tmp_path, pool, tenants=10_000, open_max=500, settled_at=2_000)


def _many_tenants(
    tmp_path: Path, pool: ThreadPoolExecutor, *, tenants: int, open_max: int, settled_at: int
) -> None:
    server = ServerProcess(tmp_path / "data", max_open=open_max, log_level="warning")
    try:
        footprints = [
            _create(server, pool, range(first, first + settled_at), settled_at)
            for first in range(0, tenants, settled_at)
        ]
        sample = random.Random(3).sample(range(tenants), tenants // 20)
        _revisit(server, pool, sample)
        footprints.append(Footprint.of(server, footprints[-1].tenants))
        _report(footprints, open_max)
        _check_sizes(server, range(20))
        for each in footprints:
            assert each.descriptors < open_max * 3 + _SPARE_DESCRIPTORS, each
        rss_kb_max = footprints[0].rss_kb + _KB_PER_TENANT_MAX * (tenants - settled_at)
        server.wait_for(
            lambda: Footprint.of(server, tenants).rss_kb < rss_kb_max,
            f"memory to be given back: at most {rss_kb_max} KB, {footprints}",
        )
    finally:
        server.stop()


def _create(
    server: ServerProcess, pool: ThreadPoolExecutor, numbers: range, step: int
) -> Footprint:
    """Create tenants by using them, and leave something of its own in each."""
    list(pool.map(lambda share: _fill(server.url, share), _shares(numbers)))
    return Footprint.of(server, numbers.start + step)


def _fill(url: str, numbers: Sequence[int]) -> None:
    client = _Client(url)
    for number in numbers:
        client.sql(number, "run", _CREATE)
        client.sql(number, "run", _INSERT, [f"note of {number}"])
    client.close()


def _revisit(server: ServerProcess, pool: ThreadPoolExecutor, sample: Sequence[int]) -> None:
    """Most of them sleep by now. Each must have its own rows, and takes another one."""

    def visit(numbers: Sequence[int]) -> None:
        client = _Client(server.url)
        for number in numbers:
            client.sql(number, "run", _INSERT, ["another"])
            rows = client.sql(number, "query", _SELECT)["rows"]
            assert rows == [{"id": 1, "body": f"note of {number}"}, {"id": 2, "body": "another"}]
        client.close()

    list(pool.map(visit, _shares(sample)))


def _check_sizes(server: ServerProcess, numbers: Sequence[int]) -> None:
    """The catalog knows the size of a database whether it is open or not."""
    asleep = 0
    for number in numbers:
        info = server.request("GET", f"/admin/tenants/{_name(number)}").json()
        files = list(server.data_dir.rglob(f"{info['id']}-*.sqlite"))
        assert len(files) == 1
        if info["state"] == "hibernated":
            asleep += 1
            assert info["sizeBytes"] == files[0].stat().st_size, info
    assert asleep, "the oldest tenants are still awake"


def _report(footprints: list[Footprint], open_max: int) -> None:
    print()
    for each in footprints:
        print(
            f"{each.tenants:,} tenants, at most {open_max} open: "
            f"{each.descriptors:,} descriptors, {each.rss_kb / 1024:.1f} MB resident"
        )


def _shares(numbers: Sequence[int]) -> list[Sequence[int]]:
    return [numbers[start::_THREADS] for start in range(_THREADS)]


def _name(number: int) -> str:
    return f"many-{number}"


class _Client:
    """One keep-alive connection, without the typed client's comforts."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)

    def sql(
        self, number: int, kind: str, sql: str, params: Sequence[object] = ()
    ) -> dict[str, list[object]]:
        headers = {
            "Authorization": f"Bearer {ADMIN_TOKEN}",
            "Content-Type": "application/json",
            "X-Tenant-ID": _name(number),
        }
        body = json.dumps({"sql": sql, "params": list(params)})
        self._connection.request("POST", f"/{kind}", body, headers)
        reply = self._connection.getresponse()
        text = reply.read()
        assert reply.status == 200, text
        found: dict[str, list[object]] = json.loads(text)
        return found

    def close(self) -> None:
        self._connection.close()
