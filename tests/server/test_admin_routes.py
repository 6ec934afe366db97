"""Tenants, tokens, migrations and whole databases, over real HTTP with the admin token."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

ADMIN_ROUTES = [
    ("POST", "/admin/tenants"),
    ("GET", "/admin/tenants"),
    ("GET", "/admin/tenants/x"),
    ("DELETE", "/admin/tenants/x"),
    ("GET", "/admin/tenants/x/export"),
    ("PUT", "/admin/tenants/x/import"),
    ("POST", "/admin/tokens"),
    ("GET", "/admin/tokens/0000000000000000"),
    ("DELETE", "/admin/tokens/0000000000000000"),
    ("GET", "/admin/migrations"),
    ("POST", "/admin/migrations"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
def test_every_admin_route_needs_the_admin_token(
    shared_server: ServerProcess, method: str, path: str
) -> None:
    token = shared_server.new_token(shared_server.new_tenant())
    answers = [
        (reply.status, reply.code)
        for reply in (
            shared_server.request(method, path, token=None),
            shared_server.request(method, path, token="wrong"),
            shared_server.request(method, path, token=token),
        )
    ]
    assert answers == [(401, "missing_token"), (401, "invalid_token"), (403, "forbidden")]


# --- tenants ----------------------------------------------------------------------------------


def test_a_tenant_is_created_shown_and_deleted(server: ServerProcess) -> None:
    created = server.request("POST", "/admin/tenants", json={"name": "acme"})
    assert created.status == 201
    info = created.json()
    assert info["name"] == "acme"
    assert info["state"] == "hibernated"
    assert len(info["id"]) == 64
    assert set(info) == {
        "name", "id", "createdAt", "lastUsedAt", "sizeBytes", "txid", "state", "durability",
    }  # fmt: skip
    again = server.request("POST", "/admin/tenants", json={"name": "acme"})
    assert (again.status, again.code) == (409, "tenant_exists")
    server.sql("acme", "run", "CREATE TABLE t(a)")
    shown = server.request("GET", "/admin/tenants/acme").json()
    assert shown["state"] == "awake"
    assert shown["txid"] > 0
    assert server.request("DELETE", "/admin/tenants/acme").status == 204
    for method in ("GET", "DELETE"):
        gone = server.request(method, "/admin/tenants/acme")
        assert (gone.status, gone.code) == (404, "tenant_not_found")


def test_a_tenant_made_again_is_empty_and_its_old_tokens_open_nothing(
    server: ServerProcess,
) -> None:
    server.sql("acme", "run", "CREATE TABLE secrets(a)")
    token = server.new_token("acme")
    server.request("DELETE", "/admin/tenants/acme")
    server.request("POST", "/admin/tenants", json={"name": "acme"})
    assert server.sql("acme", "query", "SELECT 1", token=token).code == "invalid_token"
    assert server.sql("acme", "query", "SELECT * FROM secrets").status == 400


def test_tenants_are_listed_in_name_order_page_by_page(server: ServerProcess) -> None:
    names = ["b-1", "a-2", "a-1", "a-3", "c-1"]
    for name in names:
        server.request("POST", "/admin/tenants", json={"name": name})

    def page(query: str) -> tuple[list[str], str | None]:
        body = server.request("GET", f"/admin/tenants?{query}").json()
        return [each["name"] for each in body["tenants"]], body["cursor"]

    assert page("") == (sorted(names), None)
    first, cursor = page("limit=2")
    assert first == ["a-1", "a-2"]
    second, cursor = page(f"limit=2&cursor={cursor}")
    assert second == ["a-3", "b-1"]
    assert page(f"limit=2&cursor={cursor}") == (["c-1"], None)
    assert page("prefix=a-") == (["a-1", "a-2", "a-3"], None)
    assert page("prefix=nobody") == ([], None)


# --- tokens -----------------------------------------------------------------------------------


def test_a_token_is_told_once_and_opens_its_tenant_until_it_is_revoked(
    server: ServerProcess,
) -> None:
    server.request("POST", "/admin/tenants", json={"name": "acme"})
    created = server.request(
        "POST", "/admin/tokens", json={"tenant": "acme", "access": "read-only", "expiresIn": 3600}
    )
    assert created.status == 201
    token = created.json()
    assert token["token"].startswith(f"dsk_{token['id']}_")
    info = server.request("GET", f"/admin/tokens/{token['id']}")
    assert info.json() == {
        "id": token["id"],
        "tenant": "acme",
        "access": "read-only",
        "createdAt": info.json()["createdAt"],
        "expiresAt": token["expiresAt"],
        "expired": False,
    }
    opened = server.sql("acme", "query", "SELECT 1 AS one", token=token["token"])
    assert opened.status == 200
    assert server.request("DELETE", f"/admin/tokens/{token['id']}").status == 204
    refused = server.sql("acme", "query", "SELECT 1 AS one", token=token["token"])
    assert (refused.status, refused.code) == (401, "invalid_token")
    missing = server.request("GET", f"/admin/tokens/{token['id']}")
    assert (missing.status, missing.code) == (404, "token_not_found")


def test_no_token_is_kept_in_plain_text(server: ServerProcess) -> None:
    """Seed fault 002 L940: whoever reads the disk must not find a live token on it."""
    server.request("POST", "/admin/tenants", json={"name": "acme"})
    token = server.new_token("acme")
    server.stop()
    secret = token.split("_", 2)[2].encode()
    kept = [path for path in server.data_dir.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if secret in path.read_bytes()]


# --- export and import ------------------------------------------------------------------------


def test_an_export_is_a_database_that_sqlite_reads(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    tenant = shared_server.new_tenant()
    shared_server.sql(tenant, "run", "CREATE TABLE t(a)")
    shared_server.sql(tenant, "run", "INSERT INTO t VALUES ('x'), ('y')")
    reply = shared_server.request("GET", f"/admin/tenants/{tenant}/export")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/vnd.sqlite3"
    assert f'filename="{tenant}.sqlite"' in reply.headers["content-disposition"]
    path = tmp_path / "export.sqlite"
    path.write_bytes(reply.body)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT a FROM t ORDER BY a").fetchall() == [("x",), ("y",)]
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    scratch = shared_server.data_dir / "scratch"
    shared_server.wait_for(lambda: not list(scratch.iterdir()), "the copy to be removed")


def database(path: Path, rows: int) -> bytes:
    """A database made by SQLite itself."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE imported(a TEXT)")
    connection.executemany("INSERT INTO imported VALUES (?)", [("x" * 100,)] * rows)
    connection.commit()
    connection.close()
    return path.read_bytes()


def test_an_import_creates_or_replaces_a_tenant(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    """30,000 rows: larger than the limit of ordinary bodies."""
    content = database(tmp_path / "new.sqlite", 30_000)
    assert len(content) > 2 * 1024 * 1024
    existing = shared_server.new_tenant()
    shared_server.sql(existing, "run", "CREATE TABLE old(a)")
    for name in (existing, f"{existing}-new"):
        reply = shared_server.request("PUT", f"/admin/tenants/{name}/import", content=content)
        assert reply.status == 201, reply.body
        assert reply.json()["name"] == name
        count = shared_server.sql(name, "queryOne", "SELECT count(*) AS n FROM imported")
        assert count.json() == {"row": {"n": 30_000}}
    assert shared_server.sql(existing, "query", "SELECT * FROM old").status == 400


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 500])
def test_a_bad_import_changes_nothing(shared_server: ServerProcess, content: bytes) -> None:
    tenant = shared_server.new_tenant()
    shared_server.sql(tenant, "run", "CREATE TABLE kept(a)")
    reply = shared_server.request("PUT", f"/admin/tenants/{tenant}/import", content=content)
    assert (reply.status, reply.code) == (400, "invalid_database")
    assert shared_server.sql(tenant, "query", "SELECT * FROM kept").json() == {"rows": []}
    scratch = shared_server.data_dir / "scratch"  # images of other imports may be on their way
    shared_server.wait_for(lambda: not list(scratch.iterdir()), "an empty scratch directory")


def test_an_import_is_limited_by_the_databases_quota(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start_server(database_bytes_max=1_000_000)
    content = database(tmp_path / "large.sqlite", 20_000)
    reply = server.request("PUT", "/admin/tenants/acme/import", content=content)
    assert (reply.status, reply.code) == (413, "body_too_large")


# --- migrations -------------------------------------------------------------------------------


def test_migrations_are_reported_and_run(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "001_first.sql").write_text("CREATE TABLE first(a);")
    server = start_server(migrations=str(folder), data_dir=tmp_path / "data")
    server.sql("acme", "run", "INSERT INTO first VALUES (1)")
    server.stop()
    (folder / "002_second.sql").write_text("CREATE TABLE second(a);")
    server.restart()
    state = {"tenant": "acme", "version": 1, "pending": ["002_second"], "error": None}
    report = {"available": ["001_first", "002_second"], "tenants": [state]}
    assert server.request("GET", "/admin/migrations").json() == report
    dry = server.request("POST", "/admin/migrations", json={"dryRun": True})
    assert (dry.status, dry.json()) == (200, report)
    done = server.request("POST", "/admin/migrations", json={"tenant": "acme"}).json()
    assert done["tenants"] == [{**state, "version": 2, "pending": []}]
    assert server.sql("acme", "query", "SELECT * FROM second").json() == {"rows": []}


def test_a_migration_that_fails_is_reported_for_its_tenant(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "001_first.sql").write_text("CREATE TABLE first(a);")
    server = start_server(migrations=str(folder), data_dir=tmp_path / "data")
    server.sql("broken", "run", "CREATE TABLE second(taken)")
    server.sql("fine", "run", "INSERT INTO first VALUES (1)")
    server.stop()
    (folder / "002_second.sql").write_text("CREATE TABLE second(a);")
    server.restart()
    report = server.request("POST", "/admin/migrations", json={}).json()
    states = {each["tenant"]: each for each in report["tenants"]}
    assert states["fine"]["pending"] == []
    assert states["broken"]["pending"] == ["002_second"]
    assert "002_second" in states["broken"]["error"]
    assert str(folder) not in states["broken"]["error"]


# --- metrics ----------------------------------------------------------------------------------


def test_metrics_count_requests_by_route_and_never_by_tenant(server: ServerProcess) -> None:
    for tenant in ("acme", "globex"):
        server.sql(tenant, "query", "SELECT 1 AS one")
        server.request("POST", f"/t/{tenant}/query", json={"sql": "SELECT 1 AS one"})
    server.request("GET", "/secret/path?token=x")
    reply = server.request("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    text = reply.body.decode()
    expected = [
        'dosql_requests_total{method="POST",route="/query",status="200"} 2.0',
        'dosql_requests_total{method="POST",route="/t/{tenant}/query",status="200"} 2.0',
        'dosql_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        "dosql_awake_objects 2.0",
        'dosql_request_seconds_count{route="/query"} 2.0',
    ]
    for line in expected:
        assert line in text.splitlines()
    for secret in ("acme", "globex", "secret"):
        assert secret not in text
