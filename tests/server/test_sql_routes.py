"""The four SQL routes over real HTTP."""

from __future__ import annotations

import re
import uuid

import pytest

from tests.support.server import ServerProcess

BOOKMARK = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")


@pytest.fixture
def tenant(shared_server: ServerProcess) -> str:
    """A tenant with a table of two rows."""
    name = shared_server.new_tenant()
    for sql in (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
    ):
        assert shared_server.sql(name, "run", sql).status == 200
    return name


def test_seed_2_11_query_returns_rows(shared_server: ServerProcess, tenant: str) -> None:
    reply = shared_server.sql(tenant, "query", "SELECT * FROM t WHERE id > ?", [0])
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {"rows": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}


def test_seed_2_12_query_one_returns_a_row_or_null(
    shared_server: ServerProcess, tenant: str
) -> None:
    found = shared_server.sql(tenant, "queryOne", "SELECT name FROM t ORDER BY id")
    assert found.json() == {"row": {"name": "a"}}
    missing = shared_server.sql(tenant, "queryOne", "SELECT name FROM t WHERE id = 9")
    assert missing.json() == {"row": None}


def test_seed_2_13_run_returns_changes_and_row_id(
    shared_server: ServerProcess, tenant: str
) -> None:
    inserted = shared_server.sql(tenant, "run", "INSERT INTO t(name) VALUES (:n)", {"n": "c"})
    assert inserted.json() == {"changes": 1, "lastInsertRowid": 3}
    updated = shared_server.sql(tenant, "run", "UPDATE t SET name = name || '!'")
    assert updated.json()["changes"] == 3


def test_seed_2_14_transaction_returns_a_result_for_each_operation(
    shared_server: ServerProcess, tenant: str
) -> None:
    operations = [
        {"type": "run", "sql": "INSERT INTO t(name) VALUES (?)", "params": ["c"]},
        {"type": "query", "sql": "SELECT name FROM t WHERE id > 1"},
        {"type": "queryOne", "sql": "SELECT count(*) AS n FROM t"},
        {"type": "queryOne", "sql": "SELECT 1 AS one WHERE 0"},
    ]
    reply = shared_server.request(
        "POST", "/transaction", json={"operations": operations}, tenant=tenant
    )
    assert reply.json() == {
        "results": [
            {"changes": 1, "lastInsertRowid": 3},
            [{"name": "b"}, {"name": "c"}],
            {"n": 3},
            None,
        ]
    }


def test_a_transaction_is_all_or_nothing_and_names_the_failed_operation(
    shared_server: ServerProcess, tenant: str
) -> None:
    operations = [
        {"type": "run", "sql": "INSERT INTO t(name) VALUES ('c')"},
        {"type": "run", "sql": "INSERT INTO t(name) VALUES ('a')"},
        {"type": "run", "sql": "INSERT INTO t(name) VALUES ('d')"},
    ]
    reply = shared_server.request(
        "POST", "/transaction", json={"operations": operations}, tenant=tenant
    )
    assert (reply.status, reply.code) == (409, "constraint_unique")
    assert reply.json()["index"] == 1
    assert reply.json()["sqliteCode"] == "SQLITE_CONSTRAINT_UNIQUE"
    count = shared_server.sql(tenant, "queryOne", "SELECT count(*) AS n FROM t")
    assert count.json() == {"row": {"n": 2}}


def test_an_empty_transaction_has_no_results(shared_server: ServerProcess, tenant: str) -> None:
    reply = shared_server.request("POST", "/transaction", json={"operations": []}, tenant=tenant)
    assert (reply.status, reply.json()) == (200, {"results": []})


def test_the_routes_exist_below_the_tenants_path_too(
    shared_server: ServerProcess, tenant: str
) -> None:
    body = {"sql": "SELECT id FROM t WHERE id = 1"}
    below = shared_server.request("POST", f"/t/{tenant}/query", json=body)
    assert below.json() == {"rows": [{"id": 1}]}


def test_every_sql_reply_carries_the_bookmark_of_the_state_it_reflects(
    shared_server: ServerProcess, tenant: str
) -> None:
    """A read repeats the bookmark of the write before it; each write has a later one."""
    first = shared_server.sql(tenant, "run", "INSERT INTO t(name) VALUES ('c')")
    read = shared_server.sql(tenant, "query", "SELECT 1 AS one")
    second = shared_server.sql(tenant, "run", "INSERT INTO t(name) VALUES ('d')")
    marks = [each.headers["dosql-bookmark"] for each in (first, read, second)]
    assert all(BOOKMARK.fullmatch(mark) for mark in marks)
    assert marks[0] == marks[1] < marks[2]


VALUES = [
    ("null", None, None),
    ("integer", 42, 42),
    ("largest", 2**63 - 1, 2**63 - 1),
    ("smallest", -(2**63), -(2**63)),
    ("real", 1.5, 1.5),
    ("text", "é€😀", "é€😀"),
    ("text with a NUL", "a\0b", "a\0b"),
    ("blob", {"$blob": "AP8="}, {"$blob": "AP8="}),
    ("empty blob", {"$blob": ""}, {"$blob": ""}),
    ("boolean", True, 1),
]


@pytest.mark.parametrize(("value", "shown"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES])
def test_values_go_in_and_come_out_unchanged(
    shared_server: ServerProcess, tenant: str, value: object, shown: object
) -> None:
    reply = shared_server.sql(tenant, "queryOne", "SELECT ? AS v", [value])
    assert reply.json() == {"row": {"v": shown}}


def test_infinity_and_broken_text_come_out_tagged(
    shared_server: ServerProcess, tenant: str
) -> None:
    sql = "SELECT 9e999 AS high, -9e999 AS low, CAST(x'ff' AS TEXT) AS broken"
    assert shared_server.sql(tenant, "queryOne", sql).json()["row"] == {
        "high": {"$float": "Infinity"},
        "low": {"$float": "-Infinity"},
        "broken": {"$blob": "/w=="},
    }


def test_large_integers_come_as_text_on_request(shared_server: ServerProcess, tenant: str) -> None:
    body = {"sql": "SELECT 9007199254740993 AS large, 7 AS small"}
    reply = shared_server.request("POST", f"/t/{tenant}/query?int=string", json=body)
    assert reply.json() == {"rows": [{"large": "9007199254740993", "small": 7}]}


def test_rows_as_arrays_keep_columns_of_the_same_name(
    shared_server: ServerProcess, tenant: str
) -> None:
    body = {"sql": "SELECT 1 AS a, 2 AS a"}
    path = f"/t/{tenant}/query"
    assert shared_server.request("POST", path, json=body).json() == {"rows": [{"a": 2}]}
    arrays = shared_server.request("POST", f"{path}?rows=array", json=body).json()
    assert arrays == {"columns": ["a", "a"], "rows": [[1, 2]]}
    one = shared_server.request("POST", f"{path}One?rows=array", json=body).json()
    assert one == {"columns": ["a", "a"], "row": [1, 2]}


def test_rows_as_arrays_hold_in_a_transaction_too(
    shared_server: ServerProcess, tenant: str
) -> None:
    operations = [
        {"type": "query", "sql": "SELECT id FROM t"},
        {"type": "queryOne", "sql": "SELECT id FROM t WHERE id = 9"},
    ]
    path = f"/t/{tenant}/transaction?rows=array"
    reply = shared_server.request("POST", path, json={"operations": operations})
    assert reply.json() == {
        "results": [
            {"columns": ["id"], "rows": [[1], [2]]},
            {"columns": ["id"], "row": None},
        ]
    }


@pytest.mark.parametrize("kind", ["run", "query", "queryOne"])
def test_a_write_sent_twice_with_one_key_is_applied_once(
    shared_server: ServerProcess, tenant: str, kind: str
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    sql = "INSERT INTO t(name) VALUES ('once')" + ("" if kind == "run" else " RETURNING id")
    first = shared_server.sql(tenant, kind, sql, headers=key)
    second = shared_server.sql(tenant, kind, sql, headers=key)
    assert first.status == second.status == 200
    assert first.body == second.body
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    count = shared_server.sql(tenant, "queryOne", "SELECT count(*) AS n FROM t")
    assert count.json() == {"row": {"n": 3}}


def test_a_transaction_sent_twice_with_one_key_is_applied_once(
    shared_server: ServerProcess, tenant: str
) -> None:
    key = {"Idempotency-Key": "transfer-1"}
    body = {"operations": [{"type": "run", "sql": "INSERT INTO t(name) VALUES ('x')"}]}
    replies = [
        shared_server.request("POST", f"/t/{tenant}/transaction", json=body, headers=key)
        for _ in range(2)
    ]
    assert replies[0].json() == replies[1].json()
    assert replies[1].headers["idempotent-replayed"] == "true"


def test_a_key_used_for_another_request_is_a_conflict(
    shared_server: ServerProcess, tenant: str
) -> None:
    key = {"Idempotency-Key": "k"}
    first = shared_server.sql(tenant, "run", "INSERT INTO t(name) VALUES ('x')", headers=key)
    other = shared_server.sql(tenant, "run", "INSERT INTO t(name) VALUES ('y')", headers=key)
    assert first.status == 200
    assert (other.status, other.code) == (409, "idempotency_key_reused")


def test_a_read_with_a_key_stores_nothing(shared_server: ServerProcess, tenant: str) -> None:
    before = shared_server.sql(tenant, "query", "SELECT 1 AS one")
    keyed = shared_server.sql(
        tenant, "query", "SELECT 1 AS one", headers={"Idempotency-Key": "read"}
    )
    assert keyed.status == 200
    assert keyed.headers["dosql-bookmark"] == before.headers["dosql-bookmark"]


def test_the_database_is_the_tenants_own(shared_server: ServerProcess) -> None:
    """Seed row 2.64: what one tenant has, another does not."""
    first, second = shared_server.new_tenant(), shared_server.new_tenant()
    assert shared_server.sql(first, "run", "CREATE TABLE mine(a)").status == 200
    assert shared_server.sql(second, "query", "SELECT * FROM mine").status == 400


READ_ONLY = [
    ("run", {"sql": "INSERT INTO t(name) VALUES ('x')"}),
    ("run", {"sql": "SELECT 1"}),
    ("query", {"sql": "INSERT INTO t(name) VALUES ('x') RETURNING id"}),
    ("queryOne", {"sql": "DELETE FROM t RETURNING id"}),
    ("transaction", {"operations": [{"type": "run", "sql": "DELETE FROM t"}]}),
    ("transaction", {"operations": [{"type": "query", "sql": "DELETE FROM t RETURNING id"}]}),
    ("transactions", {}),
]


@pytest.mark.parametrize(("route", "body"), READ_ONLY)
def test_a_read_only_token_cannot_write(
    shared_server: ServerProcess, tenant: str, route: str, body: object
) -> None:
    token = shared_server.new_token(tenant, "read-only")
    reply = shared_server.request("POST", f"/t/{tenant}/{route}", json=body, token=token)
    assert (reply.status, reply.code) == (403, "read_only")
    count = shared_server.sql(tenant, "queryOne", "SELECT count(*) AS n FROM t", token=token)
    assert count.json() == {"row": {"n": 2}}


def test_a_read_only_token_reads_in_a_transaction(
    shared_server: ServerProcess, tenant: str
) -> None:
    token = shared_server.new_token(tenant, "read-only")
    body = {"operations": [{"type": "queryOne", "sql": "SELECT count(*) AS n FROM t"}]}
    reply = shared_server.request("POST", f"/t/{tenant}/transaction", json=body, token=token)
    assert reply.json() == {"results": [{"n": 2}]}


def test_acknowledged_writes_survive_a_kill(server: ServerProcess) -> None:
    tenant = server.new_tenant()
    server.sql(tenant, "run", "CREATE TABLE t(a)")
    assert server.sql(tenant, "run", "INSERT INTO t VALUES ('kept')").status == 200
    server.kill()
    server.restart()
    assert server.sql(tenant, "query", "SELECT a FROM t").json() == {"rows": [{"a": "kept"}]}
