"""A real server whose bucket goes away and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.buckets import new_s3_bucket, s3_credentials
from tests.support.cold_servers import ENVIRON
from tests.support.faulty_proxy import FaultyProxy
from tests.support.minio import MinioServer
from tests.support.server import ServerProcess

__all__ = ["s3_credentials"]
CREATE = "CREATE TABLE items(id INTEGER PRIMARY KEY, value TEXT)"
INSERT = "INSERT INTO items(value) VALUES (?)"


class Setting:
    """A server behind a proxy."""

    def __init__(self, root: Path, proxy: FaultyProxy, durability: str) -> None:
        self.proxy = proxy
        name = new_s3_bucket(f"http://{proxy.upstream}")
        self.server = ServerProcess(
            root / "data",
            environ=ENVIRON,
            bucket=f"s3://{name}/node",
            s3_endpoint=proxy.url,
            durability=durability,
        )
        assert self.server.sql("acme", "run", CREATE).status == 200
        assert self.server.sql("acme", "run", INSERT, ["before"]).status == 200
        self.server.wait_for(lambda: self.behind() == 0, "the bucket")

    def behind(self) -> float:
        """Objects of which the bucket lacks something."""
        return self.server.metric("dosql_objects_behind")

    def cut(self) -> None:
        """Nothing arrives any more."""
        self.proxy.choose = lambda method, path: "reset"

    def mend(self) -> None:
        """Everything does."""
        self.proxy.choose = lambda method, path: None

    def values(self) -> list[str]:
        """What the table holds."""
        reply = self.server.sql("acme", "query", "SELECT value FROM items ORDER BY id")
        assert reply.status == 200, reply.body
        return [row["value"] for row in reply.json()["rows"]]


@pytest.fixture
def proxy(minio: MinioServer, s3_credentials: None) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(minio.url)
    yield proxy
    proxy.close()


def test_in_mode_local_writes_go_on_and_metrics_say_how_far_the_bucket_is_behind(
    tmp_path: Path, proxy: FaultyProxy
) -> None:
    setting = Setting(tmp_path, proxy, "local")
    server = setting.server
    try:
        setting.cut()
        for number in range(5):
            assert server.sql("acme", "run", INSERT, [f"during {number}"]).status == 200
        server.wait_for(lambda: server.metric("dosql_bucket_stalled_seconds") > 0, "the stall")
        assert server.metric("dosql_objects_behind") >= 1
        assert server.metric("dosql_spool_bytes") > 0
        assert server.request("GET", "/ready").status == 200
        setting.mend()
        server.wait_for(lambda: setting.behind() == 0, "the bucket")
        assert server.metric("dosql_bucket_stalled_seconds") == 0
        assert len(setting.values()) == 6
    finally:
        server.kill()


def test_in_mode_bucket_writes_are_refused_reads_go_on_and_nothing_is_lost(
    tmp_path: Path, proxy: FaultyProxy
) -> None:
    setting = Setting(tmp_path, proxy, "bucket")
    server = setting.server
    try:
        setting.cut()
        unknown = server.sql("acme", "run", INSERT, ["in doubt"])
        assert (unknown.status, unknown.code) == (503, "bucket_unavailable")
        refused = server.sql("acme", "run", INSERT, ["refused"])
        assert (refused.status, refused.code) == (503, "bucket_unavailable")
        assert "nothing was written" in refused.json()["error"]
        ready = server.request("GET", "/ready")
        assert ready.status == 503
        assert ready.code == "bucket_unavailable"
        assert "bucket" in ready.json()["error"]
        setting.mend()
        server.wait_for(lambda: setting.behind() == 0, "the bucket")
        assert server.request("GET", "/ready").status == 200
        assert server.sql("acme", "run", INSERT, ["after"]).status == 200
        assert setting.values() == ["before", "in doubt", "after"]
    finally:
        server.kill()


def test_a_server_that_stops_without_its_bucket_ends_in_time_and_ships_after_its_restart(
    tmp_path: Path, proxy: FaultyProxy
) -> None:
    setting = Setting(tmp_path, proxy, "local")
    server = setting.server
    try:
        setting.cut()
        assert server.sql("acme", "run", INSERT, ["during"]).status == 200
        assert server.stop() == 0
        setting.mend()
        server.restart()
        server.wait_for(lambda: setting.behind() == 0, "the bucket")
        assert setting.values() == ["before", "during"]
    finally:
        server.kill()
