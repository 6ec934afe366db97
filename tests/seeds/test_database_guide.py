"""The rows of the source guide's checklist (numbers 2.x) that this version covers and no other
test is named after: each against a real server."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dosql.clock import SystemClock
from dosql.errors import ConstraintError, DosqlError, SqlError
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import load_migrations
from tests.support.server import ADMIN_TOKEN, ServerProcess

ROOT = Path(__file__).parent.parent.parent
TODOS = (
    "CREATE TABLE todos(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL,"
    " done INTEGER DEFAULT 0)"
)


def test_seed_2_1_a_database_is_opened_by_name_with_its_migrations(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "001_notes.sql").write_text("CREATE TABLE notes(text TEXT);")
    server = start_server(migrations=str(folder))
    assert server.sql("acme", "query", "SELECT * FROM notes").json() == {"rows": []}


def test_seed_2_2_exec_runs_several_statements_or_none(tmp_path: Path) -> None:
    db = Database(str(tmp_path / "a.sqlite"), clock=SystemClock())
    db.exec("CREATE TABLE a(x); INSERT INTO a VALUES (1); INSERT INTO a VALUES (2);")
    with pytest.raises(SqlError):
        db.exec("INSERT INTO a VALUES (3); INSERT INTO nowhere VALUES (1);")
    assert db.query("SELECT x FROM a").rows == [(1,), (2,)]
    db.close()


def test_seed_2_3_a_prepared_statement_returns_all_rows(tmp_path: Path) -> None:
    db = Database(str(tmp_path / "a.sqlite"), clock=SystemClock())
    db.exec("CREATE TABLE a(x); INSERT INTO a VALUES (1), (2), (3);")
    statement = db.prepare("SELECT x FROM a WHERE x > ?")
    assert statement.all(1) == [(2,), (3,)]
    assert statement.get(2) == (3,)
    db.close()


def test_seed_2_4_to_2_6_the_client_queries_and_runs(shared_server: ServerProcess) -> None:
    with shared_server.client() as client:
        tenant = client.tenant(shared_server.new_tenant())
        done = tenant.run("INSERT INTO users(name, email) VALUES (?, ?)", ["Ada", "a@example.com"])
        assert (done.changes, done.last_insert_rowid) == (1, 1)
        assert tenant.query("SELECT id, name FROM users") == [{"id": 1, "name": "Ada"}]
        assert tenant.query_one("SELECT id FROM users WHERE name = 'Bob'") is None


def test_seed_2_7_2_17_a_transaction_reads_returns_and_rolls_back_on_an_exception(
    shared_server: ServerProcess,
) -> None:
    """The guide's own client records statements and reads nothing inside; this one reads."""
    with shared_server.client() as client:
        tenant = client.tenant(shared_server.new_tenant())
        tenant.run("CREATE TABLE stock(product INTEGER PRIMARY KEY, left INTEGER)")
        tenant.run("INSERT INTO stock VALUES (1, 3)")
        with tenant.transaction() as tx:
            row = tx.query_one("SELECT left FROM stock WHERE product = 1")
            assert row == {"left": 3}
            tx.run("UPDATE stock SET left = left - 1 WHERE product = 1")
            assert tx.query_one("SELECT left FROM stock") == {"left": 2}
        with pytest.raises(ZeroDivisionError), tenant.transaction() as tx:
            tx.run("UPDATE stock SET left = 0")
            raise ZeroDivisionError
        assert tenant.query("SELECT left FROM stock") == [{"left": 2}]


def test_seed_2_8_to_2_10_the_quick_start_todos(shared_server: ServerProcess) -> None:
    """Its ``/query`` answered bare rows; here, as in the guide's full version, ``{"rows"}``."""
    tenant = shared_server.new_tenant()
    assert shared_server.sql(tenant, "run", TODOS).status == 200
    for title in ("Learn dosql", "Use it"):
        reply = shared_server.sql(tenant, "run", "INSERT INTO todos(title) VALUES (?)", [title])
        assert reply.json()["changes"] == 1
    todos = shared_server.sql(tenant, "query", "SELECT * FROM todos ORDER BY id DESC").json()
    assert todos == {
        "rows": [
            {"id": 2, "title": "Use it", "done": 0},
            {"id": 1, "title": "Learn dosql", "done": 0},
        ]
    }
    refused = shared_server.sql(tenant, "query", "INSERT INTO todos(title) VALUES ('x')")
    assert (refused.status, refused.code) == (400, "statement_returns_no_rows")
    returning = "INSERT INTO todos(title) VALUES ('x') RETURNING id"
    assert shared_server.sql(tenant, "query", returning).json() == {"rows": [{"id": 3}]}


def test_seed_2_15_failures_have_their_own_statuses_instead_of_500(
    shared_server: ServerProcess,
) -> None:
    tenant = shared_server.new_tenant()
    unknown = shared_server.request("POST", "/nothing", json={}, tenant=tenant)
    assert (unknown.status, unknown.json()["error"]) == (404, "Not found")
    assert shared_server.sql(tenant, "query", "SELEC 1").status == 400


def test_seed_2_16_the_client_raises_typed_errors_with_the_servers_reason(
    shared_server: ServerProcess,
) -> None:
    with shared_server.client() as client:
        tenant = client.tenant(shared_server.new_tenant())
        tenant.run("INSERT INTO users(name, email) VALUES ('a', 'a@example.com')")
        with pytest.raises(ConstraintError, match=r"users\.email") as refusal:
            tenant.run("INSERT INTO users(name, email) VALUES ('b', 'A@example.com')")
        assert refusal.value.status == 409
        assert refusal.value.code == "constraint_unique"
        assert refusal.value.request_id
        assert refusal.value.sqlite_code == "SQLITE_CONSTRAINT_UNIQUE"
        assert not refusal.value.retryable


def test_seed_2_18_to_2_20_the_tenant_comes_from_path_header_or_subdomain(
    start_server: Callable[..., ServerProcess],
) -> None:
    """One name, whichever way it comes; no silent default, and sources must agree."""
    server = start_server(base_domain="db.example.com")
    create = {"sql": "CREATE TABLE seen(x)"}
    assert server.request("POST", "/t/acme/run", json=create).status == 200
    ask = {"sql": "SELECT count(*) AS n FROM seen"}
    for path, headers in (
        ("/t/acme/query", {}),
        ("/query", {"X-Tenant-ID": "acme"}),
        ("/query", {"Host": "acme.db.example.com"}),
        ("/t/acme/query", {"Host": "acme.db.example.com", "X-Tenant-ID": "acme"}),
    ):
        reply = server.request("POST", path, json=ask, headers=headers)
        assert reply.json() == {"rows": [{"n": 0}]}, (path, headers)
    disagreeing = server.request(
        "POST", "/query", json=ask, headers={"Host": "acme.db.example.com", "X-Tenant-ID": "b"}
    )
    assert (disagreeing.status, disagreeing.code) == (400, "tenant_conflict")
    for host in ("localhost:8787", "db.example.com", "www.db.example.com", "127.0.0.1"):
        nameless = server.request("POST", "/query", json=ask, headers={"Host": host})
        assert (nameless.status, nameless.code) == (400, "tenant_required"), host


def test_seed_2_41_migrations_are_applied_once_and_drift_is_an_error(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    first = folder / "001_a.sql"
    first.write_text("CREATE TABLE a(x); INSERT INTO a VALUES (1);")
    server = start_server(migrations=str(folder))
    count = "SELECT count(*) AS n FROM a"
    assert server.sql("acme", "query", count).json() == {"rows": [{"n": 1}]}
    (folder / "002_b.sql").write_text("CREATE TABLE b(x);")
    server.restart()
    assert server.sql("acme", "query", count).json() == {"rows": [{"n": 1}]}
    assert server.sql("acme", "query", "SELECT * FROM b").status == 200
    first.write_text("CREATE TABLE a(y);")
    server.restart()
    drifted = server.sql("acme", "query", count)
    assert drifted.code == "migration_drift"


def test_seed_2_42_the_default_schema_has_its_tables_and_working_cascades(
    shared_server: ServerProcess,
) -> None:
    names = [each.name for each in load_migrations(ROOT / "migrations")]
    assert names == [
        "001_create_users",
        "002_create_posts",
        "003_create_sessions",
        "004_create_rate_limits",
    ]
    with shared_server.client() as client:
        tenant = client.tenant(shared_server.new_tenant())
        tenant.run("INSERT INTO users(name, email) VALUES ('a', 'a@example.com')")
        tenant.run("INSERT INTO posts(user_id, title, content) VALUES (1, 't', 'c')")
        tenant.run("DELETE FROM users WHERE id = 1")
        assert tenant.query_one("SELECT count(*) AS n FROM posts") == {"n": 0}
        with pytest.raises(ConstraintError) as refusal:
            tenant.run("INSERT INTO posts(user_id, title, content) VALUES (9, 't', 'c')")
        assert refusal.value.code == "constraint_foreign_key"


def test_seed_2_56_an_integration_test_creates_and_fetches_a_user(server: ServerProcess) -> None:
    assert server.request("GET", "/health", token=None).status == 200
    with server.client() as client:
        tenant = client.tenant("acme")
        created = tenant.run("INSERT INTO users(name, email) VALUES ('Ada', 'ada@example.com')")
        row = tenant.query_one("SELECT name FROM users WHERE id = ?", [created.last_insert_rowid])
        assert row == {"name": "Ada"}


def test_seed_2_57_every_setting_is_a_flag_or_a_variable(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(
        environ={"DOSQL_ADMIN_TOKEN": ADMIN_TOKEN, "DOSQL_DEFAULT_TENANT": "acme"}
    )
    reply = server.request("POST", "/query", json={"sql": "SELECT 1 AS one"})
    assert reply.json() == {"rows": [{"one": 1}]}
    assert server.request("GET", "/admin/tenants/acme").status == 200


def test_seed_2_58_the_commands_of_the_project_explain_themselves() -> None:
    text = subprocess.run(
        ["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for target in ("serve", "test", "check", "bench", "demo", "help", "clean"):
        assert f"make {target}" in text


def test_seed_2_64_tenants_do_not_see_each_other(shared_server: ServerProcess) -> None:
    one, two = shared_server.new_tenant(), shared_server.new_tenant()
    insert = "INSERT INTO users(name, email) VALUES ('a', 'a@example.com')"
    assert shared_server.sql(one, "run", insert).status == 200
    count = "SELECT count(*) AS n FROM users"
    assert shared_server.sql(one, "query", count).json() == {"rows": [{"n": 1}]}
    assert shared_server.sql(two, "query", count).json() == {"rows": [{"n": 0}]}
    for escape in ("ATTACH 'x.sqlite' AS x", "VACUUM INTO 'x.sqlite'"):
        assert shared_server.sql(two, "run", escape).status == 403
    token = shared_server.new_token(one)
    assert shared_server.sql(two, "query", count, token=token).status == 404


def test_seed_2_66_the_package_is_small_and_a_client_does_not_load_the_server() -> None:
    """The guide's claim is a small bundle; ours: what is not used is not imported."""
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, dosql; dosql.Client;"
            "print([m for m in ('apsw', 'litestar', 'uvicorn') if m in sys.modules])",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert loaded.strip() == "[]"
    code = sum(path.stat().st_size for path in (ROOT / "dosql").rglob("*.py"))
    assert code < 2_000_000


def test_seed_2_67_the_layout_of_the_project() -> None:
    for path in ("migrations", "dosql/client", "dosql/host", "server/routes", "dosql/py.typed"):
        assert (ROOT / path).exists()


def test_seed_2_69_an_object_is_opened_at_its_first_call_and_kept_for_the_next(
    server: ServerProcess,
) -> None:
    server.request("POST", "/admin/tenants", json={"name": "acme"})
    before = server.metric("dosql_wakes_total")
    info = server.request("GET", "/admin/tenants/acme").json()
    assert info["state"] == "hibernated"
    for _ in range(5):
        server.sql("acme", "query", "SELECT 1 AS one")
    assert server.metric("dosql_wakes_total") == before + 1
    assert server.request("GET", "/admin/tenants/acme").json()["state"] == "awake"


@dataclasses.dataclass
class User:
    """A row of the default schema."""

    id: int
    name: str


def test_seed_2_5_rows_become_the_callers_own_types(shared_server: ServerProcess) -> None:
    with shared_server.client() as client:
        tenant = client.tenant(shared_server.new_tenant())
        tenant.run("INSERT INTO users(name, email) VALUES ('Ada', 'ada@example.com')")
        assert tenant.query_one("SELECT id, name FROM users", into=User) == User(1, "Ada")


def test_seed_2_64_an_exported_tenant_is_a_plain_sqlite_file(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    with shared_server.client() as client:
        name = shared_server.new_tenant()
        client.tenant(name).run("CREATE TABLE own(x)")
        target = tmp_path / "copy.sqlite"
        client.admin.tenants.export(name, target)
        connection = sqlite3.connect(target)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        connection.close()
        assert {"own", "users", "posts"} <= tables


def test_seed_2_38_no_error_tells_of_paths_or_of_the_servers_own_statements(
    shared_server: ServerProcess,
) -> None:
    tenant = shared_server.new_tenant()
    for sql in (
        "SELECT * FROM _dosql_migrations",
        "ATTACH '/etc/passwd' AS p",
        "SELEC",
        "SELECT (",
    ):
        body = json.dumps(shared_server.sql(tenant, "query", sql).json())
        for secret in (str(shared_server.data_dir), "Traceback", "apsw", "INSERT OR REPLACE"):
            assert secret not in body


def test_errors_are_all_of_one_family() -> None:
    assert issubclass(ConstraintError, SqlError)
    assert issubclass(SqlError, DosqlError)
