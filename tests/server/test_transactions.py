"""Interactive transactions over real HTTP: they really read, and never outlive their client."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from tests.support.server import Reply, ServerProcess


@pytest.fixture
def tenant(shared_server: ServerProcess) -> str:
    """A tenant with an account of 100."""
    return with_account(shared_server)


def with_account(server: ServerProcess) -> str:
    name = server.new_tenant()
    server.sql(name, "run", "CREATE TABLE account(balance INTEGER CHECK (balance >= 0))")
    server.sql(name, "run", "INSERT INTO account VALUES (100)")
    return name


def begin(server: ServerProcess, tenant: str) -> str:
    reply = server.request("POST", "/transactions", tenant=tenant)
    assert reply.status == 201, reply.body
    id: str = reply.json()["id"]
    return id


def inside(server: ServerProcess, tenant: str, id: str, kind: str, sql: str) -> Reply:
    return server.request("POST", f"/transactions/{id}/{kind}", json={"sql": sql}, tenant=tenant)


def commit(server: ServerProcess, tenant: str, id: str, key: str | None = None) -> Reply:
    headers = {} if key is None else {"Idempotency-Key": key}
    return server.request("POST", f"/transactions/{id}/commit", tenant=tenant, headers=headers)


def balance(server: ServerProcess, tenant: str) -> object:
    return server.sql(tenant, "queryOne", "SELECT balance FROM account").json()["row"]["balance"]


def open_stream(server: ServerProcess, tenant: str) -> tuple[socket.socket, str]:
    """A transaction that lives as long as the connection; returns both."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(
        (
            "POST /transactions HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n"
            f"Authorization: Bearer {server.admin_token}\r\nX-Tenant-ID: {tenant}\r\n"
            "Content-Length: 0\r\n\r\n"
        ).encode()
    )
    received = b""
    while b"}\n" not in received:
        received += connection.recv(4096)
    assert received.startswith(b"HTTP/1.1 201 ")
    assert b"content-type: application/x-ndjson" in received
    line = received[received.index(b"{") : received.index(b"}\n") + 1]
    return connection, json.loads(line)["id"]


def test_a_transaction_reads_its_own_writes_and_commits_them(
    shared_server: ServerProcess, tenant: str
) -> None:
    id = begin(shared_server, tenant)
    done = inside(shared_server, tenant, id, "run", "UPDATE account SET balance = balance - 30")
    assert done.json() == {"changes": 1, "lastInsertRowid": 0}
    seen = inside(shared_server, tenant, id, "queryOne", "SELECT balance FROM account")
    assert seen.json() == {"row": {"balance": 70}}
    rows = inside(shared_server, tenant, id, "query", "SELECT balance FROM account")
    assert rows.json() == {"rows": [{"balance": 70}]}
    committed = commit(shared_server, tenant, id)
    assert (committed.status, committed.json()) == (200, {"committed": True})
    assert committed.headers["dosql-bookmark"]
    assert balance(shared_server, tenant) == 70


def test_it_exists_below_the_tenants_path_too(shared_server: ServerProcess, tenant: str) -> None:
    id = shared_server.request("POST", f"/t/{tenant}/transactions").json()["id"]
    body = {"sql": "UPDATE account SET balance = 1"}
    path = f"/t/{tenant}/transactions/{id}"
    assert shared_server.request("POST", f"{path}/run", json=body).status == 200
    assert shared_server.request("POST", f"{path}/commit").status == 200
    assert balance(shared_server, tenant) == 1


def test_the_reply_says_how_long_it_may_last(shared_server: ServerProcess, tenant: str) -> None:
    reply = shared_server.request("POST", "/transactions", tenant=tenant)
    body = reply.json()
    assert body["idleSeconds"] == 5.0
    assert body["expiresAt"].endswith("Z")
    shared_server.request("DELETE", f"/transactions/{body['id']}", tenant=tenant)


def test_a_rollback_undoes_all_and_may_be_repeated(
    shared_server: ServerProcess, tenant: str
) -> None:
    id = begin(shared_server, tenant)
    inside(shared_server, tenant, id, "run", "UPDATE account SET balance = 0")
    for _ in range(2):
        reply = shared_server.request("DELETE", f"/transactions/{id}", tenant=tenant)
        assert reply.status == 204
    assert balance(shared_server, tenant) == 100
    gone = inside(shared_server, tenant, id, "query", "SELECT 1 AS one")
    assert (gone.status, gone.code) == (404, "transaction_not_found")


def test_a_failed_statement_leaves_the_transaction_open(
    shared_server: ServerProcess, tenant: str
) -> None:
    id = begin(shared_server, tenant)
    inside(shared_server, tenant, id, "run", "UPDATE account SET balance = 50")
    failed = inside(shared_server, tenant, id, "run", "UPDATE account SET balance = -1")
    assert (failed.status, failed.code) == (409, "constraint_check")
    assert commit(shared_server, tenant, id).status == 200
    assert balance(shared_server, tenant) == 50


def test_a_transaction_that_sqlite_ended_is_aborted_and_then_gone(
    shared_server: ServerProcess, tenant: str
) -> None:
    id = begin(shared_server, tenant)
    inside(shared_server, tenant, id, "run", "UPDATE account SET balance = 50")
    ended = inside(shared_server, tenant, id, "run", "INSERT OR ROLLBACK INTO account VALUES (-1)")
    assert ended.status == 409
    assert commit(shared_server, tenant, id).code == "transaction_not_found"
    assert balance(shared_server, tenant) == 100


def test_a_commit_sent_again_gets_the_first_answer(
    shared_server: ServerProcess, tenant: str
) -> None:
    """The reply to the first one may have been lost on the way."""
    id = begin(shared_server, tenant)
    inside(shared_server, tenant, id, "run", "UPDATE account SET balance = 9")
    first, second = (commit(shared_server, tenant, id, "key-1") for _ in range(2))
    assert first.json() == second.json() == {"committed": True}
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["dosql-bookmark"] == first.headers["dosql-bookmark"]
    assert commit(shared_server, tenant, id, "key-2").code == "transaction_not_found"
    assert commit(shared_server, tenant, id).code == "transaction_not_found"


def test_a_commit_that_never_came_is_not_replayed(
    shared_server: ServerProcess, tenant: str
) -> None:
    id = begin(shared_server, tenant)
    shared_server.request("DELETE", f"/transactions/{id}", tenant=tenant)
    reply = commit(shared_server, tenant, id, "key")
    assert (reply.status, reply.code) == (404, "transaction_not_found")


def test_another_tenants_transaction_does_not_exist(
    shared_server: ServerProcess, tenant: str
) -> None:
    other = shared_server.new_tenant()
    id = begin(shared_server, tenant)
    reply = inside(shared_server, other, id, "run", "UPDATE account SET balance = 0")
    assert (reply.status, reply.code) == (404, "transaction_not_found")
    shared_server.request("DELETE", f"/transactions/{id}", tenant=other)
    assert commit(shared_server, tenant, id).status == 200, "others cannot end it either"


def test_an_idle_transaction_is_rolled_back(start_server: Callable[..., ServerProcess]) -> None:
    """Others wait for it: the read below is answered once the idle deadline has passed."""
    server = start_server(transaction_idle_seconds=0.2)
    tenant = with_account(server)
    id = begin(server, tenant)
    inside(server, tenant, id, "run", "UPDATE account SET balance = 0")
    assert balance(server, tenant) == 100
    assert commit(server, tenant, id).code == "transaction_not_found"


def test_a_busy_transaction_is_rolled_back_at_its_absolute_deadline(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(transaction_seconds=1, transaction_idle_seconds=1)
    tenant = with_account(server)
    id = begin(server, tenant)
    inside(server, tenant, id, "run", "UPDATE account SET balance = 0")
    server.wait_for(
        lambda: inside(server, tenant, id, "query", "SELECT 1 AS one").status == 404,
        "the deadline of a transaction that is never idle",
    )
    assert balance(server, tenant) == 100


def test_a_client_that_goes_away_releases_its_transaction_at_once(
    start_server: Callable[..., ServerProcess],
) -> None:
    """With deadlines far away only the closed stream can have ended it."""
    server = start_server(transaction_idle_seconds=600, transaction_seconds=600)
    tenant = with_account(server)
    stream, id = open_stream(server, tenant)
    inside(server, tenant, id, "run", "UPDATE account SET balance = 0")
    stream.close()
    assert balance(server, tenant) == 100
    assert commit(server, tenant, id).code == "transaction_not_found"
    assert server.metric("dosql_open_transactions") == 0


def test_the_stream_ends_with_the_transaction(shared_server: ServerProcess, tenant: str) -> None:
    stream, id = open_stream(shared_server, tenant)
    with stream:
        assert commit(shared_server, tenant, id).status == 200
        rest = b""
        while b"0\r\n\r\n" not in rest:
            chunk = stream.recv(4096)
            assert chunk, "the connection was closed before the stream's end"
            rest += chunk


def test_the_stream_ends_when_the_server_stops(server: ServerProcess) -> None:
    tenant = with_account(server)
    stream, id = open_stream(server, tenant)
    with stream:
        inside(server, tenant, id, "run", "UPDATE account SET balance = 0")
        assert server.stop() == 0
    server.restart()
    assert balance(server, tenant) == 100
