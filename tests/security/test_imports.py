"""Imported files: what SQL could not have made does not come in by a file either."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import apsw
import pytest

from tests.support.server import ServerProcess

SESSIONS = "CREATE TABLE sessions (token_hash BLOB PRIMARY KEY, user_id INTEGER)"
STATES = "CREATE TABLE _dosql_rate_limits (key BLOB PRIMARY KEY, at, used, before, expires)"
ATTACKS = {
    "fts over sessions": (
        SESSIONS,
        "CREATE VIRTUAL TABLE leak USING fts5(token_hash, content='sessions')",
    ),
    "fts over a reserved table": (
        STATES,
        "CREATE VIRTUAL TABLE leak USING fts5(key, content=_dosql_rate_limits)",
    ),
    "fts over one that is made later": (
        "CREATE VIRTUAL TABLE leak USING fts5(body, content='_dosql_idempotency')",
    ),
    "fts in another spelling": (
        SESSIONS,
        'CREATE VIRTUAL TABLE leak USING fts5(token_hash, content="SESSIONS")',
    ),
    "fts with the servers shadow": ("CREATE VIRTUAL TABLE _dosql USING fts5(a)",),
    "fts with a reserved name": ("CREATE VIRTUAL TABLE _dosql_kv USING fts5(a)",),
    "another module": ("CREATE VIRTUAL TABLE leak USING dbstat",),
    "an old module": ("CREATE VIRTUAL TABLE leak USING fts4(a, content='_dosql_migrations')",),
    "words of a full-text table of another module": (
        "CREATE VIRTUAL TABLE words USING fts4(a)",
        "CREATE VIRTUAL TABLE leak USING fts4aux(words)",
    ),
    "a view in place of sessions": ("CREATE VIEW sessions AS SELECT 1 AS token_hash",),
    "a view in place of a reserved table": ("CREATE VIEW _DOSQL_idempotency AS SELECT 1",),
    "a table in full text in place of sessions": ("CREATE VIRTUAL TABLE Sessions USING fts5(a)",),
    "a trigger on sessions": (
        SESSIONS,
        "CREATE TABLE loot (a)",
        "CREATE TRIGGER thief AFTER INSERT ON sessions"
        " BEGIN INSERT INTO loot VALUES (new.token_hash); END",
    ),
    "a trigger that swallows hits": (
        STATES,
        "CREATE TRIGGER swallow BEFORE INSERT ON _dosql_rate_limits"
        " BEGIN SELECT RAISE(IGNORE); END",
    ),
    "a trigger on a view in place of sessions": (
        "CREATE VIEW rate_limits AS SELECT 1 AS key, 2 AS tat",
        "CREATE TRIGGER thief INSTEAD OF INSERT ON rate_limits BEGIN SELECT 1; END",
    ),
    "a trigger with a reserved name": (
        "CREATE TABLE t (a)",
        "CREATE TRIGGER _dosql_x AFTER INSERT ON t BEGIN SELECT 1; END",
    ),
    "a reference to sessions": (
        SESSIONS,
        "CREATE TABLE child (a REFERENCES sessions (token_hash))",
    ),
    "a reference to a table of later": ("CREATE TABLE child (a REFERENCES _dosql_rate_hits)",),
    "an index that forbids two hits": (
        STATES,
        "CREATE UNIQUE INDEX one ON _dosql_rate_limits (expires)",
    ),
}
HARMLESS = (
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT, sessions INTEGER)",
    "CREATE INDEX by_body ON notes (body)",
    "CREATE VIRTUAL TABLE found USING fts5(body, content='notes', content_rowid='id')",
    "CREATE VIRTUAL TABLE places USING rtree(id, a, b)",
    "CREATE VIEW lengths AS SELECT id, length(body) AS length FROM notes",
    "CREATE TRIGGER indexed AFTER INSERT ON notes"
    " BEGIN INSERT INTO found (rowid, body) VALUES (new.id, new.body); END",
    # SQL can make these, and they are refused whenever they run.
    "CREATE VIEW mine AS SELECT * FROM sessions",
    "CREATE TRIGGER looks AFTER DELETE ON notes BEGIN DELETE FROM sessions; END",
    "INSERT INTO notes VALUES (1, 'hello world', 2)",
)


def a_file(path: Path, statements: tuple[str, ...]) -> bytes:
    connection = apsw.Connection(str(path))
    for sql in statements:
        connection.execute(sql)
    connection.close()
    return path.read_bytes()


def imported(server: ServerProcess, name: str, content: bytes) -> tuple[int, str | None]:
    reply = server.request("PUT", f"/admin/tenants/{name}/import", content=content)
    assert not any(leak in reply.body.decode() for leak in ("Traceback", "/data", ".sqlite"))
    return reply.status, reply.code


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_with_what_no_sql_could_have_made_is_refused_and_leaves_nothing(
    name: str, shared_server: ServerProcess, tmp_path: Path
) -> None:
    content = a_file(tmp_path / "file.sqlite", ATTACKS[name])
    kept = shared_server.new_tenant()
    shared_server.sql(kept, "run", "CREATE TABLE t (v)")
    before = databases(shared_server)
    assert imported(shared_server, f"{kept}-2", content) == (400, "invalid_database")
    assert shared_server.request("GET", f"/admin/tenants/{kept}-2").status == 404
    assert imported(shared_server, kept, content) == (400, "invalid_database")
    assert shared_server.sql(kept, "run", "INSERT INTO t VALUES (1)").status == 200
    assert databases(shared_server) == before


def databases(server: ServerProcess) -> set[str]:
    """Names of files that hold a tenant, or might become one."""
    folders = [server.data_dir / "objects", server.data_dir / "scratch"]
    names = (each.name for folder in folders for each in folder.rglob("*.sqlite*"))
    return {name.removesuffix("-wal").removesuffix(".pos") for name in names}


def test_what_sql_has_made_goes_out_and_comes_in_again(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    tenant = shared_server.new_tenant()
    for sql in HARMLESS:
        assert shared_server.sql(tenant, "run", sql).status == 200, sql
    account = {"email": "a@example.com", "name": "A", "password": "a good password"}
    signed = shared_server.request("POST", "/auth/signup", json=account, token=None, tenant=tenant)
    assert signed.status == 201
    content = shared_server.request("GET", f"/admin/tenants/{tenant}/export").body
    assert imported(shared_server, f"{tenant}-2", content) == (201, None)
    found = shared_server.sql(f"{tenant}-2", "query", "SELECT body FROM found('world')")
    assert found.json() == {"rows": [{"body": "hello world"}]}
    for sql in ("SELECT * FROM mine", "DELETE FROM notes"):
        reply = shared_server.sql(f"{tenant}-2", "query" if sql[0] == "S" else "run", sql)
        assert (reply.status, reply.code) == (403, "sql_forbidden")


def test_a_schema_that_lies_about_what_a_trigger_is_on_is_damaged(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    """The check goes by the names in sqlite_schema: SQLite itself compares them with the text."""
    path = tmp_path / "file.sqlite"
    a_file(path, ATTACKS["a trigger on sessions"])
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET tbl_name = 'loot' WHERE name = 'thief'")
    connection.close()
    assert imported(shared_server, "liar", path.read_bytes()) == (400, "invalid_database")


@pytest.mark.parametrize("between", ["/**/", " -- x\n", "\n\t "])
def test_a_virtual_table_is_seen_in_whatever_way_its_text_is_written(
    between: str, shared_server: ServerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "file.sqlite"
    a_file(path, ATTACKS["fts over sessions"])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'CREATE VIRTUAL', ?) WHERE name = 'leak'",
        [f"create{between}virtual"],
    )
    connection.commit()
    connection.close()
    assert imported(shared_server, "spelt", path.read_bytes()) == (400, "invalid_database")
