"""The commands, each in a process of its own against a real server."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dosql.client import Client, Tenant
from tests.cli.conftest import Run, run_dosql
from tests.support.server import ServerProcess


def test_tenants_are_created_listed_and_removed(dosql: Run, name: str) -> None:
    created = dosql("tenant", "create", name, "--json")
    assert json.loads(created.stdout)["name"] == name
    listed = dosql("tenant", "ls", "--prefix", name)
    assert listed.stdout.splitlines()[0].split() == ["NAME", "STATE", "SIZE", "LAST", "USED"]
    assert listed.stdout.splitlines()[1].startswith(name)
    assert json.loads(dosql("tenant", "ls", "--json").stdout)["tenants"]
    assert json.loads(dosql("tenant", "info", name, "--json").stdout)["state"] in (
        "awake",
        "hibernated",
    )
    removed = dosql("tenant", "rm", name, "--yes")
    assert (removed.returncode, removed.stdout) == (0, "")
    assert dosql("tenant", "info", name).returncode == 1


def test_an_error_is_one_line_with_its_code_and_request_id(dosql: Run) -> None:
    done = dosql("tenant", "info", "nobody")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "(tenant_not_found, request " in done.stderr


def test_nothing_is_deleted_without_being_asked(dosql: Run, tenant: Tenant) -> None:
    """Where nobody can be asked, --yes must be there: exit code 2, as for a wrong command line."""
    done = dosql("tenant", "rm", tenant.name)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert dosql("tenant", "info", tenant.name).returncode == 0


def test_a_database_travels_through_a_file(dosql: Run, tenant: Tenant, tmp_path: Path) -> None:
    tenant.run("CREATE TABLE fruit (name TEXT)")
    tenant.run("INSERT INTO fruit VALUES ('apple')")
    file = tmp_path / "fruit.sqlite"
    exported = dosql("tenant", "export", tenant.name, file, "--json")
    assert json.loads(exported.stdout)["sizeBytes"] == file.stat().st_size
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT * FROM fruit").fetchall() == [("apple",)]
    connection.close()
    assert dosql("tenant", "export", tenant.name, file).returncode == 2, "it would overwrite"
    assert dosql("tenant", "export", tenant.name, file, "--yes").returncode == 0

    copy = f"{tenant.name}-copy"
    assert json.loads(dosql("tenant", "import", copy, file, "--json").stdout)["name"] == copy
    rows = dosql("query", copy, "SELECT * FROM fruit", "--json")
    assert json.loads(rows.stdout) == [{"name": "apple"}]
    assert dosql("tenant", "import", copy, file).returncode == 2, "it would replace"
    assert dosql("tenant", "import", copy, file, "--yes").returncode == 0
    assert dosql("tenant", "import", copy, tmp_path / "missing").returncode == 2


def test_a_token_is_printed_alone_on_stdout(dosql: Run, tenant: Tenant) -> None:
    """So that ``token=$(dosql token create ...)`` works; the words around it are on stderr."""
    created = dosql("token", "create", "--tenant", tenant.name, "--read-only", "--expires", "7d")
    token = created.stdout.strip()
    assert token.startswith("dsk_")
    assert "not shown again" in created.stderr
    info = json.loads(dosql("token", "inspect", token, "--json").stdout)
    assert (info["tenant"], info["access"]) == (tenant.name, "read-only")

    assert dosql("query", tenant.name, "SELECT 1", token=token).returncode == 0
    refused = dosql("query", tenant.name, "CREATE TABLE t (a)", token=token)
    assert "(read_only" in refused.stderr
    assert dosql("token", "revoke", info["id"]).returncode == 0
    assert dosql("query", tenant.name, "SELECT 1", token=token).returncode == 1


@pytest.mark.parametrize("duration", ["7", "d", "-1d", "1y", "0s", "1.5h", ""])
def test_a_wrong_duration_is_a_usage_error(dosql: Run, duration: str) -> None:
    done = dosql("token", "create", "--tenant", "acme", "--expires", duration)
    assert done.returncode == 2
    assert "--expires" in done.stderr


def test_migrations_are_shown_and_run(dosql: Run, tenant: Tenant) -> None:
    status = dosql("migrate", "status")
    assert status.stdout.splitlines()[0].split() == ["TENANT", "VERSION", "PENDING"]
    report = json.loads(
        dosql("migrate", "run", "--dry-run", "--tenant", tenant.name, "--json").stdout
    )
    assert [state["tenant"] for state in report["tenants"]] == [tenant.name]
    assert dosql("migrate", "run", "--tenant", tenant.name).returncode == 0


def test_a_migration_that_fails_exits_with_one(
    dosql: Run, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """The tenant was made by an older set of files; the new one does not fit its data."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "001_create_notes.sql").write_text("CREATE TABLE notes (body TEXT);")
    server = start_server(migrations=str(folder))
    with Client(server.url, token=server.admin_token) as client:
        client.tenant("acme").run("CREATE TABLE tags (a)")
    (folder / "002_create_tags.sql").write_text("CREATE TABLE tags (name TEXT);")
    server.restart()
    done = dosql("migrate", "run", "--url", server.url)
    assert done.returncode == 1
    assert "acme" in done.stderr
    assert "002_create_tags" in done.stderr


def test_a_query_prints_rows(dosql: Run, tenant: Tenant) -> None:
    sql = "SELECT ? AS n, ? AS t, ? AS missing, ? AS b"
    params = ("-p", "42", "-p", "it's", "-p", "null", "-p", "x'00ff'")
    done = dosql("query", tenant.name, sql, *params)
    assert done.stdout.splitlines() == [
        "+----+------+---------+---------+",
        "| n  | t    | missing | b       |",
        "+----+------+---------+---------+",
        "| 42 | it's | NULL    | x'00ff' |",
        "+----+------+---------+---------+",
    ]
    as_json = json.loads(dosql("query", tenant.name, sql, *params, "--json").stdout)
    assert as_json == [{"n": 42, "t": "it's", "missing": None, "b": {"$blob": "AP8="}}]


def test_a_query_may_write(dosql: Run, tenant: Tenant) -> None:
    tenant.run("CREATE TABLE t (a)")
    done = dosql("query", tenant.name, "INSERT INTO t VALUES (:a)", "-p", ":a=1", "--json")
    assert json.loads(done.stdout) == {"changes": 1, "lastInsertRowid": 1}
    returning = dosql("query", tenant.name, "UPDATE t SET a = 2 RETURNING a", "--json")
    assert json.loads(returning.stdout) == [{"a": 2}]
    assert tenant.query("SELECT a FROM t") == [{"a": 2}]


def test_named_and_positional_parameters_do_not_mix(dosql: Run) -> None:
    done = dosql("query", "acme", "SELECT ?", "-p", "1", "-p", ":a=1")
    assert done.returncode == 2


def test_a_wrong_statement_says_where(dosql: Run, tenant: Tenant) -> None:
    done = dosql("query", tenant.name, "SELEC 1")
    assert done.returncode == 1
    assert 'near "SELEC": syntax error (' in done.stderr


def test_the_admin_token_is_found_in_the_data_directory(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """The first start created it; on the same machine no token need be given."""
    server = start_server(environ={}, data_dir=tmp_path / "data")
    created = run_dosql("tenant", "create", "acme", DOSQL_URL=server.url, cwd=tmp_path)
    assert created.returncode == 0, created.stderr
    elsewhere = run_dosql("tenant", "ls", DOSQL_URL=server.url, cwd=Path("/"))
    assert elsewhere.returncode == 1
    assert "missing_token" in elsewhere.stderr
    pointed = run_dosql(
        "tenant", "ls", "--url", server.url, cwd=Path("/"), DOSQL_DATA_DIR=str(server.data_dir)
    )
    assert pointed.returncode == 0


def test_a_server_that_is_not_there_is_named(dosql: Run) -> None:
    done = dosql("tenant", "ls", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "Cannot reach http://127.0.0.1:1" in done.stderr
    assert "connection_failed" in done.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("tenant",), ("nonsense",), ("tenant", "create"), ("query", "acme", "--no")]
)
def test_a_wrong_command_line_exits_with_two(dosql: Run, arguments: tuple[str, ...]) -> None:
    done = dosql(*arguments)
    assert done.returncode == 2
    assert "Usage: " in done.stderr + done.stdout


def test_serve_refuses_wrong_settings_as_usage() -> None:
    done = run_dosql("serve", "--max-open", "many")
    assert done.returncode == 2
    assert "invalid_settings" in done.stderr
    assert "Traceback" not in done.stderr
