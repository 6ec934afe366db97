"""Errors: one shape, one table of statuses, nothing told that is none of the client's business."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path

import pytest

from dosql import errors
from dosql.errors import DosqlError
from dosql.host.tenant import Tenant
from server.context import RequestContext
from server.error_responses import STATUS, error_reply, status_of
from server.gate import Principal
from tests.support.server import ServerProcess

SECRET = "/srv/secret/path"
FAULT = f"""
from dosql.host.tenants import Tenants
def info(self, name):
    raise RuntimeError("cannot open {SECRET}")
Tenants.info = info
"""


def subclasses(kind: type[DosqlError]) -> list[type[DosqlError]]:
    return [each for sub in kind.__subclasses__() for each in (sub, *subclasses(sub))]


def test_every_error_class_has_a_status() -> None:
    for kind in subclasses(DosqlError):
        if kind.__module__ == errors.__name__:
            assert status_of(kind("x")) == next(STATUS[k] for k in kind.__mro__ if k in STATUS)


def test_a_message_with_a_lone_surrogate_is_still_an_answer() -> None:
    error = errors.SqlError('near "\ud800": syntax error')
    status, body, _ = error_reply(error, RequestContext("id", {}))
    assert status == 400
    assert b"near" in body


def test_retry_after_is_told() -> None:
    error = errors.UnavailableError("x", retry_after_s=3)
    _, _, headers = error_reply(error, RequestContext("id", {}))
    assert (b"retry-after", b"3") in headers


def test_seed_2_38_constraints_are_conflicts_with_their_code(
    shared_server: ServerProcess,
) -> None:
    tenant = shared_server.new_tenant()
    for sql in (
        "CREATE TABLE parent(id INTEGER PRIMARY KEY, email TEXT UNIQUE)",
        "CREATE TABLE child(parent_id INTEGER NOT NULL REFERENCES parent(id))",
        "INSERT INTO parent(email) VALUES ('a')",
    ):
        shared_server.sql(tenant, "run", sql)
    unique = shared_server.sql(tenant, "run", "INSERT INTO parent(email) VALUES ('a')")
    assert (unique.status, unique.code) == (409, "constraint_unique")
    foreign = shared_server.sql(tenant, "run", "INSERT INTO child VALUES (9)")
    assert (foreign.status, foreign.code) == (409, "constraint_foreign_key")


def test_seed_2_38_2_68_an_unforeseen_failure_is_logged_and_not_told(
    start_server: Callable[..., ServerProcess],
) -> None:
    """The client gets a request id; the log has name, message, path and method under it."""
    server = start_server(prelude=FAULT)
    reply = server.request("GET", "/admin/tenants/acme")
    assert reply.status == 500
    assert reply.json() == {
        "error": "Internal server error",
        "code": "internal_error",
        "requestId": reply.headers["x-request-id"],
    }
    server.stop()
    (line,) = server.log_lines("request_failed")
    assert line["requestId"] == reply.headers["x-request-id"]
    assert line["name"] == "RuntimeError"
    assert line["message"] == f"cannot open {SECRET}"
    assert line["path"] == "/admin/tenants/{name}"
    assert line["method"] == "GET"
    assert "RuntimeError" in line["traceback"]


def test_seed_2_39_an_unknown_route_is_not_found(shared_server: ServerProcess) -> None:
    reply = shared_server.request("GET", "/no/such/route", token=None)
    assert reply.status == 404
    assert reply.json() == {
        "error": "Not found",
        "code": "not_found",
        "requestId": reply.headers["x-request-id"],
    }


def test_seed_2_40_the_error_classes_have_their_statuses(shared_server: ServerProcess) -> None:
    tenant = shared_server.new_tenant()
    missing = shared_server.request("GET", "/admin/tenants/nobody")
    taken = shared_server.request("POST", "/admin/tenants", json={"name": tenant})
    invalid = shared_server.request("POST", "/admin/tenants", json={"name": "No Name"})
    statuses = [(each.status, each.code) for each in (missing, taken, invalid)]
    assert statuses == [
        (404, "tenant_not_found"),
        (409, "tenant_exists"),
        (400, "invalid_tenant_name"),
    ]


def test_seed_2_65_the_request_context_is_typed() -> None:
    hints = typing.get_type_hints(
        RequestContext, localns={"Tenant": Tenant, "Principal": Principal}
    )
    assert hints["tenant"] == Tenant | None
    assert hints["principal"] == Principal | None
    assert hints["request_id"] is str


def test_seed_2_65_the_context_reaches_the_log(server: ServerProcess) -> None:
    server.sql("acme", "query", "SELECT 1 AS one")
    token = server.new_token("acme")
    server.sql("acme", "query", "SELECT 1 AS one", token=token)
    server.stop()
    lines = [each for each in server.log_lines("request") if each["route"] == "/query"]
    assert [(each["tenant"], each["principal"]) for each in lines] == [
        ("acme", "admin"),
        ("acme", "tenant"),
    ]


def test_the_log_has_one_line_per_request_and_no_secrets(server: ServerProcess) -> None:
    token = server.new_token(server.new_tenant())
    canaries = ["canary_sql", "canary_param", "canary_query", "canary_path", "canary_body"]
    server.sql("acme", "query", "SELECT 'canary_sql', ?", ["canary_param"])
    server.sql("acme", "query", "SELECT canary_sql FROM nowhere", token=token)
    server.request("POST", "/t/acme/query?canary_query=1", json={"sql": "SELECT 1"})
    server.request("GET", "/canary_path?token=canary_query")
    server.request("POST", "/query", content=b"canary_body", tenant="acme")
    server.request("GET", "/live", headers={"X-Request-ID": 'a"canary_path'})
    server.stop()
    assert len(server.log_lines("request")) == 8
    for canary in (*canaries, token, server.admin_token):
        assert canary not in server.log_text
    for line in server.log_lines("request"):
        assert set(line) >= {
            "ts", "level", "event", "requestId", "method", "route", "status", "durationMs",
            "tenant", "principal",
        }  # fmt: skip


@pytest.mark.parametrize(("level", "statuses"), [("warning", [404]), ("error", [])])
def test_the_level_decides_which_requests_are_logged(
    start_server: Callable[..., ServerProcess], level: str, statuses: list[int]
) -> None:
    server = start_server(log_level=level)
    server.request("GET", "/live")
    server.request("GET", "/nope")
    server.stop()
    assert [each["status"] for each in server.log_lines("request")] == statuses


DISK_FAULT = """
import os, pathlib
_fdatasync = os.fdatasync
def fdatasync(descriptor):
    if pathlib.Path({marker!r}).exists():
        raise OSError(5, "Input/output error")
    _fdatasync(descriptor)
os.fdatasync = fdatasync
"""


def test_seed_2_35_a_server_that_cannot_write_is_unhealthy(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """A sync fails underneath: the write is not acknowledged, and the health routes say so."""
    marker = tmp_path / "fault"
    server = start_server(prelude=DISK_FAULT.format(marker=str(marker)))
    server.sql("acme", "run", "CREATE TABLE t(a)")
    marker.touch()
    failed = server.sql("acme", "run", "INSERT INTO t VALUES (1)")
    assert failed.status == 503
    assert str(server.data_dir) not in failed.body.decode()
    health = server.request("GET", "/health", token=None)
    assert health.status == 503
    ready = server.request("GET", "/ready", token=None)
    assert ready.status == 503
    for reply, status in ((health, "unhealthy"), (ready, "not ready")):
        body = reply.json()
        assert body["status"] == status
        assert body["code"] in {"commit_failed", "object_recovering"}
        assert body["error"].endswith(".")
        assert body["requestId"] == reply.headers["x-request-id"]
        assert set(body) <= {"status", "error", "code", "requestId", "retryable"}
    assert server.request("GET", "/live", token=None).status == 200
