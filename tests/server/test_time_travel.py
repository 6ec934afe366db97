"""Reading and restoring the past, snapshots and branches, against a real server.

Rows 2.1, 2.57, 2.61 and 2.62 of the checklist.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.replica.litestream import litestream
from tests.support.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from tests.support.server import ADMIN_TOKEN, Reply, ServerProcess

SELECT = "SELECT id, value FROM items ORDER BY id"


def filled(server: ServerProcess) -> tuple[str, list[str]]:
    """A tenant with three rows, and the bookmark of each of its states from the empty table on."""
    tenant = server.new_tenant()
    marks = [server.sql(tenant, "run", "CREATE TABLE items(id INTEGER PRIMARY KEY, value)")]
    for value in "abc":
        marks.append(server.sql(tenant, "run", "INSERT INTO items(value) VALUES (?)", [value]))
    return tenant, [reply.headers["dosql-bookmark"] for reply in marks]


def read(server: ServerProcess, tenant: str, at: str, sql: str = SELECT, **options: Any) -> Reply:
    path = f"/t/{tenant}/query?at={at}"
    return server.request("POST", path, json={"sql": sql}, **options)


def admin(server: ServerProcess, method: str, path: str, json: object = None) -> Any:
    """The body of a reply that is a success."""
    reply = server.request(method, f"/admin/tenants/{path}", json=json)
    assert reply.status in (200, 201, 204), reply.body
    return reply.json() if reply.body else None


def values(server: ServerProcess, tenant: str) -> str:
    rows = server.sql(tenant, "query", SELECT).json()["rows"]
    return "".join(row["value"] for row in rows)


# --- reading ----------------------------------------------------------------------------------


def test_2_61_as_of_a_bookmark(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    for number, mark in enumerate(marks):
        reply = read(shared_server, tenant, mark)
        assert reply.status == 200, reply.body
        assert [row["value"] for row in reply.json()["rows"]] == list("abc"[:number])
        assert reply.headers["dosql-bookmark"] == mark
        one = shared_server.request(
            "POST",
            f"/queryOne?at={mark}&rows=array",
            json={"sql": "SELECT count(*) AS n FROM items"},
            tenant=tenant,
        )
        assert one.json() == {"columns": ["n"], "row": [number]}


def test_2_61_as_of_a_time(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    time.sleep(0.01)  # times have milliseconds
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    time.sleep(0.01)
    shared_server.sql(tenant, "run", "DELETE FROM items")
    reply = read(shared_server, tenant, now)
    assert (reply.status, len(reply.json()["rows"])) == (200, 3)
    assert reply.headers["dosql-bookmark"] == marks[-1]
    plus = now.replace("Z", "+00:00")  # a plus in a URL is a blank
    assert read(shared_server, tenant, plus).body == reply.body
    future = read(shared_server, tenant, "2999-01-01T00:00:00Z")
    assert future.json()["rows"] == []


@pytest.mark.parametrize(
    ("at", "status", "code"),
    [
        ("2026-01-31T12:00:00", 400, "invalid_time"),
        ("now", 400, "invalid_time"),
        ("", 400, "invalid_time"),
        ("1" * 15 + "-" + "2" * 16, 400, "invalid_bookmark"),
        ("1999-01-01T00:00:00Z", 404, "restore_point_not_found"),
        ("0000000000000001-0000000000000001", 404, "restore_point_not_found"),
    ],
)
def test_a_point_that_is_none(
    shared_server: ServerProcess, at: str, status: int, code: str
) -> None:
    tenant, _ = filled(shared_server)
    reply = read(shared_server, tenant, at)
    assert (reply.status, reply.code) == (status, code)
    restore = shared_server.request("POST", f"/admin/tenants/{tenant}/restore", json={"at": at})
    assert (restore.status, restore.code) == (status, code)


def test_only_reads_can_look_back(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    at = marks[0]
    body = {"sql": "DELETE FROM items"}
    run = shared_server.request("POST", f"/t/{tenant}/run?at={at}", json=body)
    assert (run.status, run.code) == (400, "invalid_request")
    batch = {"operations": [{"type": "query", "sql": "SELECT 1"}]}
    transaction = shared_server.request("POST", f"/t/{tenant}/transaction?at={at}", json=batch)
    assert (transaction.status, transaction.code) == (400, "invalid_request")
    written = read(shared_server, tenant, at, "DELETE FROM items RETURNING id")
    assert (written.status, written.code) == (403, "read_only")
    id = shared_server.request("POST", "/transactions", tenant=tenant).json()["id"]
    path = f"/transactions/{id}/query?at={at}"
    inside = shared_server.request("POST", path, json={"sql": "SELECT 1"}, tenant=tenant)
    assert inside.status == 400
    shared_server.request("DELETE", f"/transactions/{id}", tenant=tenant)


def test_a_tenants_own_token_reads_its_own_past(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    token = shared_server.new_token(tenant, "read-only")
    assert read(shared_server, tenant, marks[1], token=token).status == 200
    other, _ = filled(shared_server)
    foreign = read(shared_server, other, marks[1], token=token)
    assert (foreign.status, foreign.code) == (404, "tenant_not_found")
    restore = shared_server.request(
        "POST", f"/admin/tenants/{tenant}/restore", json={"at": marks[0]}, token=token
    )
    assert restore.status == 403


def test_a_slow_statement_on_the_past_is_stopped_and_stops_nobody(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(statement_ms=300)
    tenant, marks = filled(server)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    reply = read(server, tenant, marks[1], endless)
    assert (reply.status, reply.code) == (422, "query_timeout")


def test_without_a_bucket_nothing_is_kept(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(bucket="none")
    tenant, marks = filled(server)
    reply = read(server, tenant, marks[0])
    assert (reply.status, reply.code) == (400, "no_bucket")
    for method, path in (
        ("POST", "snapshots"),
        ("GET", "snapshots"),
        ("GET", "branches"),
    ):
        reply = server.request(method, f"/admin/tenants/{tenant}/{path}")
        assert (reply.status, reply.code) == (400, "no_bucket")
    assert "replicaUrl" not in admin(server, "GET", tenant)


# --- restoring --------------------------------------------------------------------------------


def test_2_61_restore_in_place_and_undo(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    dry = admin(shared_server, "POST", f"{tenant}/restore", {"at": marks[1], "dryRun": True})
    assert (dry["dryRun"], dry["undoBookmark"], values(shared_server, tenant)) == (
        True,
        None,
        "abc",
    )
    done = admin(shared_server, "POST", f"{tenant}/restore", {"at": marks[1]})
    assert (done["tenant"], done["bookmark"], done["dryRun"]) == (tenant, marks[1], False)
    assert values(shared_server, tenant) == "a"
    assert done["undoBookmark"] == marks[-1]
    admin(shared_server, "POST", f"{tenant}/restore", {"at": done["undoBookmark"]})
    assert values(shared_server, tenant) == "abc"


def test_2_61_restore_into_a_new_tenant(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    body = {"at": marks[2], "to": f"{tenant}-copy"}
    done = admin(shared_server, "POST", f"{tenant}/restore", body)
    assert (done["tenant"], done["undoBookmark"]) == (f"{tenant}-copy", None)
    assert values(shared_server, f"{tenant}-copy") == "ab"
    assert values(shared_server, tenant) == "abc"
    again = shared_server.request("POST", f"/admin/tenants/{tenant}/restore", json=body)
    assert (again.status, again.code) == (409, "tenant_exists")
    missing = shared_server.request("POST", "/admin/tenants/nobody/restore", json=body)
    assert (missing.status, missing.code) == (404, "tenant_not_found")


def test_a_restore_survives_a_kill(server: ServerProcess) -> None:
    tenant, marks = filled(server)
    admin(server, "POST", f"{tenant}/restore", {"at": marks[1]})
    server.kill()
    server.restart()
    assert values(server, tenant) == "a"


_DIES = """
import os
from dosql.host import restores
replace = restores.replace_state
def dying(db, *arguments, **options):
    replace(db, *arguments, **options)
    os._exit(9)
restores.replace_state = dying
"""


def test_a_kill_in_the_middle_of_a_restore_leaves_everything_as_it_was(
    start_server: Callable[..., ServerProcess],
) -> None:
    """The pages are in SQLite's WAL already, and in no log: they never were."""
    server = start_server(prelude=_DIES)
    tenant, marks = filled(server)
    with pytest.raises(httpx2.HTTPError):
        server.request("POST", f"/admin/tenants/{tenant}/restore", json={"at": marks[1]})
    assert server.kill() == 9
    server.restart()
    assert values(server, tenant) == "abc"
    server.sql(tenant, "run", "INSERT INTO items(value) VALUES ('d')")
    assert values(server, tenant) == "abcd"


# --- snapshots and info -----------------------------------------------------------------------


def test_snapshots_are_made_listed_and_removed(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    reply = shared_server.request("POST", f"/admin/tenants/{tenant}/snapshots")
    assert reply.status == 201
    made = reply.json()
    assert set(made) == {"bookmark", "txid", "sizeBytes", "createdAt"}
    assert made["bookmark"] == marks[-1]
    assert admin(shared_server, "GET", f"{tenant}/snapshots") == {"snapshots": [made]}
    assert admin(shared_server, "DELETE", f"{tenant}/snapshots/{marks[-1]}") is None
    assert admin(shared_server, "GET", f"{tenant}/snapshots") == {"snapshots": []}


def restored(url: str, target: Path, *options: str) -> list[str]:
    litestream("restore", "-integrity-check", "full", *options, "-o", str(target), url)
    with sqlite3.connect(target) as db:
        return [value for (value,) in db.execute("SELECT value FROM items ORDER BY id")]


def test_2_1_the_cold_side_is_what_litestream_restores(
    server: ServerProcess, tmp_path: Path
) -> None:
    tenant, marks = filled(server)
    admin(server, "POST", f"{tenant}/snapshots")
    server.sql(tenant, "run", "DELETE FROM items WHERE id = 1")
    admin(server, "POST", f"{tenant}/snapshots")
    info = admin(server, "GET", tenant)
    assert info["txid"] == info["replicatedTxid"] > 0
    url = info["replicaUrl"]
    assert url.startswith("file:///")
    assert restored(url, tmp_path / "newest.db") == ["b", "c"]
    for number, mark in enumerate(marks):
        txid = mark.partition("-")[0]
        assert restored(url, tmp_path / f"{number}.db", "-txid", txid) == list("abc"[:number])


def test_a_tenant_that_is_only_in_the_bucket_is_shown_with_its_position(
    server: ServerProcess,
) -> None:
    tenant, _ = filled(server)
    admin(server, "POST", f"{tenant}/snapshots")
    before = admin(server, "GET", tenant)
    bucket = server.data_dir / "bucket"
    server.stop()
    kept = server.data_dir.with_name("kept")
    shutil.move(bucket, kept)
    shutil.rmtree(server.data_dir)
    server.data_dir.mkdir()
    shutil.move(kept, bucket)
    server.restart()
    after = admin(server, "GET", tenant)
    assert (after["txid"], after["replicaUrl"]) == (before["txid"], before["replicaUrl"])
    assert values(server, tenant) == "abc"


def test_2_57_a_bucket_of_its_own_on_minio(
    start_server: Callable[..., ServerProcess], minio: MinioServer, tmp_path: Path
) -> None:
    import boto3

    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    client = boto3.client(
        "s3",
        endpoint_url=minio.url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="time-travel")
    environ = {**keys, "DOSQL_ADMIN_TOKEN": ADMIN_TOKEN, "AWS_REGION": "us-east-1"}
    server = start_server(bucket="s3://time-travel/here", s3_endpoint=minio.url, environ=environ)
    tenant, marks = filled(server)
    assert len(read(server, tenant, marks[1]).json()["rows"]) == 1
    admin(server, "POST", f"{tenant}/snapshots")
    admin(server, "POST", f"{tenant}/branches", {"name": f"{tenant}-dev"})
    assert values(server, f"{tenant}-dev") == "abc"
    url = admin(server, "GET", tenant)["replicaUrl"]
    assert re.match(r"s3://time-travel/here/objects/[0-9a-f]{64}-[0-9a-f]{16}\?endpoint=http", url)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        assert restored(url, tmp_path / "restored.db") == list("abc")


# --- branches ---------------------------------------------------------------------------------


def test_2_62_branches_create_list_compare_merge_delete(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    dev = f"{tenant}-dev"
    reply = shared_server.request(
        "POST", f"/admin/tenants/{tenant}/branches", json={"name": dev, "at": marks[2]}
    )
    assert reply.status == 201
    info = reply.json()
    assert info == {
        "name": dev,
        "parent": tenant,
        "bookmark": marks[2],
        "createdAt": info["createdAt"],
        "protected": False,
    }
    assert admin(shared_server, "GET", f"{tenant}/branches") == {"branches": [info]}
    assert values(shared_server, dev) == "ab"
    shared_server.sql(dev, "run", "UPDATE items SET value = 'B' WHERE id = 2")
    diff = admin(shared_server, "GET", f"{tenant}/branches/{dev}/diff?against=start&limit=5")
    assert diff["parentBookmark"] == marks[2]
    (table,) = diff["tables"]
    assert table["rows"] == [
        {
            "change": "changed",
            "key": {"id": 2},
            "parent": {"id": 2, "value": "b"},
            "branch": {"id": 2, "value": "B"},
        }
    ]
    merge = admin(shared_server, "POST", f"{tenant}/branches/{dev}/merge", {})
    assert (merge["merged"], merge["changed"], merge["conflicts"]) == (True, 1, [])
    assert values(shared_server, tenant) == "aBc"
    refused = shared_server.request("DELETE", f"/admin/tenants/{tenant}")
    assert (refused.status, refused.code) == (409, "tenant_has_branches")
    admin(shared_server, "DELETE", dev)
    assert admin(shared_server, "GET", f"{tenant}/branches") == {"branches": []}
    admin(shared_server, "DELETE", tenant)


def test_2_62_conflicts_are_reported_and_a_policy_settles_them(
    shared_server: ServerProcess,
) -> None:
    tenant, _ = filled(shared_server)
    dev = f"{tenant}-dev"
    admin(shared_server, "POST", f"{tenant}/branches", {"name": dev})
    shared_server.sql(tenant, "run", "UPDATE items SET value = '1' WHERE id = 1")
    shared_server.sql(dev, "run", "UPDATE items SET value = '2' WHERE id = 1")
    path = f"{tenant}/branches/{dev}/merge"
    reply = admin(shared_server, "POST", path, {})
    assert (reply["merged"], reply["conflictCount"], reply["undoBookmark"]) == (False, 1, None)
    assert reply["conflicts"] == [
        {
            "table": "items",
            "change": "changed",
            "key": {"id": 1},
            "reason": "changed",
            "parent": {"id": 1, "value": "1"},
            "branch": {"id": 1, "value": "2"},
        }
    ]
    assert admin(shared_server, "POST", path, {"conflicts": "ours"})["merged"]
    assert values(shared_server, tenant) == "1bc"
    assert admin(shared_server, "POST", path, {"conflicts": "theirs"})["merged"]
    assert values(shared_server, tenant) == "2bc"
    wrong = shared_server.request("POST", f"/admin/tenants/{path}", json={"conflicts": "x"})
    assert wrong.status == 400


def test_2_62_protected_branches(shared_server: ServerProcess) -> None:
    tenant, _ = filled(shared_server)
    dev = f"{tenant}-dev"
    admin(shared_server, "POST", f"{tenant}/branches", {"name": dev, "protected": True})
    refused = shared_server.request("DELETE", f"/admin/tenants/{dev}")
    assert (refused.status, refused.code) == (409, "tenant_protected")
    path = f"{dev}/protection"
    assert admin(shared_server, "PUT", path, {"protected": False}) == {"protected": False}
    admin(shared_server, "DELETE", dev)


# --- verification and retention ---------------------------------------------------------------


def test_what_is_in_the_bucket_is_verified(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    report = admin(shared_server, "POST", f"{tenant}/snapshots/verify", {})
    assert set(report) == {
        "sound",
        "failure",
        "bookmark",
        "at",
        "sizeBytes",
        "files",
        "bytesRead",
        "damaged",
    }
    assert (report["sound"], report["bookmark"]) == (True, marks[-1])
    both = {"everything": True, "repair": True}
    assert admin(shared_server, "POST", f"{tenant}/snapshots/verify", both)["sound"]
    pruned = admin(shared_server, "POST", f"{tenant}/snapshots/prune", {"dryRun": True})
    assert pruned == {"files": 0, "snapshots": 0, "sizeBytes": 0, "dryRun": True}
    for path in ("verify", "prune"):
        wrong = shared_server.request(
            "POST", f"/admin/tenants/{tenant}/snapshots/{path}", json={"nonsense": 1}
        )
        assert (wrong.status, wrong.code) == (400, "invalid_request")
    nobody = shared_server.request("POST", "/admin/tenants/nobody/snapshots/verify", json={})
    assert (nobody.status, nobody.code) == (404, "tenant_not_found")


def test_only_the_admin_verifies_and_prunes(shared_server: ServerProcess) -> None:
    tenant, _ = filled(shared_server)
    token = shared_server.new_token(tenant, "read-write")
    for path in ("verify", "prune"):
        refused = shared_server.request(
            "POST", f"/admin/tenants/{tenant}/snapshots/{path}", json={}, token=token
        )
        assert refused.status == 403
