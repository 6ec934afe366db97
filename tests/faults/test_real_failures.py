"""The real system refuses: a file system without room, and system calls that fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dosql.errors import OutcomeUnknownError, QuotaError, UnavailableError
from dosql.host.host import Host
from tests.support.hosts import execute, running_host, tenant_with_items
from tests.support.server import ServerProcess

# --- no room ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a tmpfs")
    path = tmp_path / "mount"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.root
async def test_a_full_file_system_is_said_and_over_when_there_is_room(small_disk: Path) -> None:
    data_dir = small_disk / "data"
    settings: dict[str, Any] = {"log_segment_bytes": 256 * 1024, "log_bytes_max": 1024 * 1024}
    acknowledged: set[str] = set()
    unknown: set[str] = set()
    refused: set[str] = set()
    async with running_host(data_dir, **settings) as host:
        tenants = [await tenant_with_items(host, f"t{number}") for number in range(3)]
        numbers = iter(range(10**6))

        async def write(count: int) -> None:
            for _ in range(count):
                value = f"{next(numbers)}".ljust(2_000, "x")
                try:
                    await execute(tenants[0], "INSERT INTO items(value) VALUES (?)", value)
                except OutcomeUnknownError:
                    unknown.add(value)
                except (QuotaError, UnavailableError):
                    refused.add(value)
                else:
                    acknowledged.add(value)

        await write(50)
        assert not refused
        for _ in range(3):
            fill(small_disk / "sibling")
            before = len(refused)
            await write(600)
            assert len(refused) + len(unknown) > before, "the disk was full, and nobody noticed"
            for each in tenants[1:]:
                assert await served(host, each.name) == set()
            (small_disk / "sibling").unlink()
            before = len(acknowledged)
            await write(20)
            assert len(acknowledged) > before, "there is room again, and nothing is written"
        check(await served(host, "t0"), acknowledged, refused, unknown)
    async with running_host(data_dir, **settings) as host:
        check(await served(host, "t0"), acknowledged, refused, unknown)


async def served(host: Host, name: str) -> set[str]:
    """What the tenant holds."""
    rows = await execute(host.tenants.get(name), "SELECT value FROM items")
    return {value for (value,) in rows}


def check(found: set[str], acknowledged: set[str], refused: set[str], unknown: set[str]) -> None:
    """What was acknowledged is there, what was refused is not."""
    assert not acknowledged - found
    assert not refused & found
    assert found <= acknowledged | unknown


# --- failing system calls ---------------------------------------------------------------------


@dataclass
class Ledger:
    """What a server said about the rows that it was sent."""

    acknowledged: set[int] = field(default_factory=set[int])
    refused: set[int] = field(default_factory=set[int])
    unknown: set[int] = field(default_factory=set[int])
    _next: int = 0

    def write(self, server: ServerProcess, count: int) -> None:
        """Send so many rows, one after the other."""
        for _ in range(count):
            self._next += 1
            reply = server.sql("acme", "run", "INSERT INTO t VALUES (?)", [self._next])
            if reply.status == 200:
                self.acknowledged.add(self._next)
                continue
            assert reply.status in (503, 507), reply.body
            kept = self.unknown if reply.code == "outcome_unknown" else self.refused
            kept.add(self._next)

    def check(self, server: ServerProcess) -> None:
        """The server holds what it acknowledged, and nothing that it refused."""
        rows = server.sql("acme", "query", "SELECT n FROM t").json()["rows"]
        found = {row["n"] for row in rows}
        assert len(found) == len(rows)
        assert not self.acknowledged - found
        assert not self.refused & found
        assert found <= self.acknowledged | self.unknown


@contextlib.contextmanager
def failing(server: ServerProcess, call: str, error: str, when: str) -> Iterator[None]:
    """Some of the server's calls of this kind fail. Skips the test where that cannot be done."""
    strace = subprocess.Popen(
        [
            *("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}"),
            *("-e", f"inject={call}:error={error}:when={when}", "-p", str(server.process.pid)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace cannot attach here: {said.strip()}")
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=30)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    ("call", "error", "when"),
    [
        ("fdatasync", "EIO", "1"),
        ("fdatasync", "EIO", "2+3"),
        ("fdatasync", "ENOSPC", "1+1"),
        ("pwrite64", "ENOSPC", "1+7"),
        ("fsync", "EIO", "1+1"),
    ],
)
def test_a_server_whose_system_calls_fail_tells_the_truth_and_recovers(
    server: ServerProcess, call: str, error: str, when: str
) -> None:
    assert server.sql("acme", "run", "CREATE TABLE t(n INTEGER PRIMARY KEY)").status == 200
    ledger = Ledger()
    ledger.write(server, 10)
    with failing(server, call, error, when):
        ledger.write(server, 60)
    if call == "fdatasync":
        assert ledger.refused or ledger.unknown
    server.wait_for(
        lambda: server.sql("acme", "query", "SELECT 1").status == 200, "the server to recover"
    )
    before = len(ledger.acknowledged)
    ledger.write(server, 10)
    assert len(ledger.acknowledged) > before
    ledger.check(server)
    server.kill()
    server.restart()
    ledger.check(server)
