"""A real server with classes of both durability modes: its bucket fails, its disk is lost."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from tests.support.server import ADMIN_TOKEN, Reply, ServerProcess

APP = "tests.support.durable_app:app"
FAILING = """
import errno, os, time
from dosql.replica import local_bucket
real = local_bucket.LocalBucket.put

def put(self, key, *some, **named):
    time.sleep({delay})
    with local_bucket._translated(key):
        if os.path.exists({away!r}):
            raise OSError(errno.EIO, "injected")
    return real(self, key, *some, **named)

local_bucket.LocalBucket.put = put
"""
"""A directory whose disk takes its time, and fails as long as a file is there."""
StartServer = Callable[..., ServerProcess]


def start(start_server: StartServer, tmp_path: Path, *, delay: float = 0.0) -> ServerProcess:
    prelude = FAILING.format(away=str(tmp_path / "away"), delay=delay)
    bucket = f"file://{tmp_path / 'bucket'}"
    return start_server(app=APP, prelude=prelude, bucket=bucket)


def call(server: ServerProcess, namespace: str, method: str, *args: Any) -> Reply:
    path = f"/rpc/{namespace}/one/{method}"
    return server.request("POST", path, json={"args": list(args)})


def test_while_the_bucket_fails_one_namespace_refuses_writes_and_the_others_go_on(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start(start_server, tmp_path)
    for namespace in ("ledger", "notes", "diary"):
        assert call(server, namespace, "add", "before").status == 200
    server.wait_for(lambda: server.metric("dosql_objects_behind") == 0, "the bucket")
    (tmp_path / "away").touch()
    refused: list[Reply] = []
    writer = threading.Thread(target=lambda: refused.append(call(server, "ledger", "add", "away")))
    writer.start()
    server.wait_for(lambda: server.metric("dosql_bucket_stalled_seconds") > 0, "the failure")
    numbers = [call(server, "notes", "add", f"away {number}").json() for number in range(5)]
    assert numbers == [{"result": number + 2} for number in range(5)]
    assert call(server, "diary", "add", "away").status == 200
    assert server.sql("acme", "run", "CREATE TABLE t(a)").status == 200
    assert server.request("GET", "/ready").status == 200
    writer.join()
    assert (refused[0].status, refused[0].code) == (503, "bucket_unavailable")
    assert server.metric("dosql_objects_refusing_writes") == 1
    (tmp_path / "away").unlink()
    server.wait_for(lambda: server.metric("dosql_objects_behind") == 0, "the bucket")
    assert server.metric("dosql_objects_refusing_writes") == 0
    assert call(server, "ledger", "add", "after").status == 200
    assert call(server, "ledger", "lines").json()["result"] == ["before", "away", "after"]


def test_nothing_that_the_mode_bucket_acknowledged_is_lost_with_the_data_directory(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The bucket is slow, so that a reply which did not wait for it would be too early."""
    server = start(start_server, tmp_path, delay=0.2)
    acknowledged: list[str] = []
    enough = threading.Event()

    def write(writer: int) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        with httpx2.Client(base_url=server.url, headers=headers, timeout=30) as http:
            for number in range(1_000):
                line = f"{writer}-{number}"
                try:
                    reply = http.post("/rpc/ledger/one/add", json={"args": [line]})
                except httpx2.HTTPError:
                    return  # it was killed
                assert reply.status_code == 200, reply.text
                acknowledged.append(line)
                if len(acknowledged) >= 40:
                    enough.set()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    assert enough.wait(60)
    server.kill()
    for each in writers:
        each.join()
    shutil.rmtree(server.data_dir)
    server.restart()
    kept = call(server, "ledger", "lines").json()["result"]
    assert set(acknowledged) <= set(kept)
    listed = server.request("GET", "/admin/objects/ledger").json()["objects"]
    assert [(each["name"], each["durability"]) for each in listed] == [("one", "bucket")]


def test_the_admin_s_routes_say_which_mode_applies(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start(start_server, tmp_path)
    assert server.sql("acme", "query", "SELECT 1").status == 200
    assert server.request("GET", "/admin/tenants/acme").json()["durability"] == "local"
    for namespace, mode in (("ledger", "bucket"), ("notes", "local"), ("diary", "local")):
        assert call(server, namespace, "add", "one").status == 200
        [info] = server.request("GET", f"/admin/objects/{namespace}").json()["objects"]
        assert info["durability"] == mode


def test_a_server_without_a_bucket_refuses_an_app_that_needs_one(tmp_path: Path) -> None:
    from tests.server.test_start_up import refusal

    status, text = refusal(app=APP, bucket="none", data_dir=str(tmp_path / "data"))
    assert status == 2
    assert 'Ledger (namespace ledger) has durability="bucket"' in text
    assert "start it with --bucket" in text
    assert not (tmp_path / "data").exists()
