"""What strangers could use up: memory by passwords, descriptors by streams; and whom they could
have the server call: nobody."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
CALLERS = {
    "aiohttp",
    "boto3",
    "botocore",
    "ftplib",
    "http.client",
    "httpx",
    "httpx2",
    "requests",
    "smtplib",
    "urllib.request",
    "urllib3",
    "websockets.asyncio.client",
    "websockets.sync.client",
}
"""Modules by which a program calls others."""
MAY_CALL = ("dosql/client/", "dosql/cli/", "dosql/replica/s3_", "dosql/replica/bucket_url.py")
"""The client, and the bucket that the operator configured. Nothing of these runs for a request."""


# --- SSRF -------------------------------------------------------------------------------------


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def callers_in(files: list[Path]) -> list[str]:
    return [
        f"{path}: {name}"
        for path in files
        for name in imports_of(path)
        if name in CALLERS or name.partition(".")[0] in CALLERS
    ]


def test_nothing_that_serves_a_request_can_call_another_server() -> None:
    files = [*(ROOT / "dosql").rglob("*.py"), *(ROOT / "server").rglob("*.py")]
    serving = [each for each in files if not str(each.relative_to(ROOT)).startswith(MAY_CALL)]
    assert len(serving) > 150
    assert callers_in(serving) == []
    assert callers_in([each for each in files if each not in serving]) != []  # it finds them


def test_a_server_that_runs_has_loaded_nothing_to_call_others_with() -> None:
    program = "import json, sys, server.run, server.app; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    assert CALLERS & set(json.loads(done.stdout)) == set()


# --- passwords --------------------------------------------------------------------------------


def test_50_logins_at_a_time_take_the_memory_of_two(server: ServerProcess) -> None:
    """argon2id takes 19 MiB for each; unbounded these would take 950."""
    tenant = server.new_tenant()

    def log_in(number: int) -> int:
        body = {"email": f"u{number}@example.com", "password": "wrong password"}
        return server.request("POST", "/auth/login", json=body, tenant=tenant).status

    process = psutil.Process(server.process.pid)
    assert log_in(0) == 401  # what is loaded once is loaded now
    before = process.memory_info().rss
    most = 0
    with ThreadPoolExecutor(50) as pool:
        under_way = [pool.submit(log_in, number) for number in range(1, 51)]
        while not all(each.done() for each in under_way):
            most = max(most, process.memory_info().rss)
    assert {each.result() for each in under_way} <= {401, 503}
    assert most - before < 150 * 1024 * 1024


# --- streams ----------------------------------------------------------------------------------


def abandon_events(server: ServerProcess, tenant: str) -> None:
    """Ask for an event stream, and go away as soon as it has begun."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            f"GET /t/{tenant}/changes HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer {server.admin_token}\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def abandon_socket(server: ServerProcess, tenant: str) -> None:
    """The same of a WebSocket, without a word of farewell."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            f"GET /t/{tenant}/changes HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {server.admin_token}\r\n\r\n".encode()
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("abandon", [abandon_events, abandon_socket])
def test_streams_that_are_abandoned_leave_nothing_behind(
    abandon: Callable[[ServerProcess, str], None], start_server: Callable[..., ServerProcess]
) -> None:
    """300 of a tenant that allows 20 at a time: each must have gone for the last to be let in."""
    server = start_server(
        changes="on", prelude="from dosql import limits; limits.CHANGE_SUBSCRIBERS_MAX = 20"
    )
    tenant = server.new_tenant()
    server.sql(tenant, "run", "CREATE TABLE t (v)")
    process = psutil.Process(server.process.pid)
    abandon(server, tenant)
    server.wait_for(lambda: followers(server, abandon, tenant), "the first to be gone")
    before = process.num_fds()
    for _ in range(300):
        server.wait_for(lambda: followers(server, abandon, tenant), "room for one more")
    server.wait_for(lambda: process.num_fds() <= before + 2, "the descriptors")


def followers(
    server: ServerProcess, abandon: Callable[[ServerProcess, str], None], tenant: str
) -> bool:
    """Whether one more was let in; it is gone again."""
    try:
        abandon(server, tenant)
    except AssertionError:
        return False
    return True
