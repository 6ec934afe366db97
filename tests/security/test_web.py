"""What holds on the open web: headers on every reply, nothing leaked, the admin apart."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import Reply, ServerProcess

LEAKS = ("Traceback", "apsw", "/server/", "/dosql/", "_dosql_", ".py", "site-packages", "sqlite3.")
SECURE = (
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "cross-origin-resource-policy",
    "content-security-policy",
    "x-request-id",
)
CANARIES = (
    "canary-secret-in-a-token",
    "canary-secret-in-a-statement",
    "canary-secret-in-a-parameter",
    "canary-secret-in-a-query",
    "canary-secret-in-a-path",
    "canary-secret-in-a-body",
    "canary-secret-in-a-header",
    "canary-secret-in-a-password",
)
RAISES = """
import server.sql_routes as module
def broken(*args, **kwargs):
    raise RuntimeError("secret /etc/dosql/key in _dosql_idempotency")
module.require_json = broken
"""


def send(server: ServerProcess, data: bytes) -> bytes:
    """Raw bytes, and all that comes back until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


# --- seed 2.33: secure headers, CORS ----------------------------------------------------------


def replies(server: ServerProcess) -> Iterator[tuple[int, Reply]]:
    """One of every kind of reply, with the status that it should have."""
    tenant = server.new_tenant()
    yield 200, server.sql(tenant, "query", "SELECT 1 AS one")
    yield 400, server.sql(tenant, "query", "SELEC")
    yield 400, server.request("POST", "/query", json={"sql": "SELECT 1"})
    yield 401, server.sql(tenant, "query", "SELECT 1", token=None)
    yield 403, server.sql(tenant, "query", "ATTACH 'x' AS y")
    yield 404, server.request("GET", "/nope")
    yield 404, server.request("GET", "/admin/tenants/nobody-has-this-name")
    yield 405, server.request("GET", "/query")
    yield 409, server.request("POST", "/admin/tenants", json={"name": tenant})
    yield 413, server.sql(tenant, "query", "SELECT zeroblob(3000000)")
    yield 413, server.request("POST", "/query", content=b"x" * 2_200_000, tenant=tenant)
    yield 415, server.request("POST", "/query", content=b"x", headers={"Content-Encoding": "gzip"})
    yield 201, server.request("POST", "/admin/tenants", json={"name": tenant + "-2"})
    yield 204, server.request("DELETE", f"/admin/tenants/{tenant}-2")


def test_seed_2_33_every_reply_has_the_secure_headers_errors_too(
    shared_server: ServerProcess,
) -> None:
    for status, reply in replies(shared_server):
        assert reply.status == status, reply.body
        missing = [name for name in SECURE if name not in reply.headers]
        assert not missing, f"{status}: {missing}"
        assert "server" not in reply.headers
        assert "set-cookie" not in reply.headers
        assert not any(leak in reply.body.decode() for leak in LEAKS), reply.body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
def test_a_decompression_bomb_is_not_even_looked_at(
    encoding: str, shared_server: ServerProcess
) -> None:
    bomb = zlib.compress(b" " * 10_000_000)
    headers = {"Content-Encoding": encoding}
    reply = shared_server.request("POST", "/query", content=bomb, headers=headers, tenant="x")
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


EVIL = [
    "https://evil.test",
    "null",
    "https://app.example.com.evil.test",
    "https://app.example.com:1",
]


def test_only_listed_origins_read_errors_that_no_route_has_seen(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Seed 2: L837, ``cors()`` let everybody in."""
    server = start_server(cors_origins=["https://app.example.com"])
    for origin in ("https://app.example.com", *EVIL):
        big = {"Origin": origin, "Content-Encoding": "gzip"}
        reply = server.request("POST", "/query", content=b"x", headers=big)
        assert reply.status == 415
        expected = origin if origin not in EVIL else None
        assert reply.headers.get("access-control-allow-origin") == expected
        assert "access-control-allow-credentials" not in reply.headers


# --- errors -----------------------------------------------------------------------------------


def test_what_was_not_foreseen_says_nothing_but_its_request_id(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(prelude=RAISES)
    reply = server.sql("acme", "query", "SELECT 1")
    assert (reply.status, reply.code) == (500, "internal_error")
    assert reply.json()["error"] == "Internal server error"
    assert "secret" not in reply.body.decode()
    assert all(name in reply.headers for name in SECURE)
    server.wait_for(lambda: bool(server.log_lines("request_failed")), "the log")
    line = server.log_lines("request_failed")[0]
    assert line["requestId"] == reply.headers["x-request-id"]
    assert "secret" in line["message"]  # there it belongs


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b"])
def test_nothing_that_a_client_sends_becomes_a_header_of_the_reply(
    value: str, shared_server: ServerProcess
) -> None:
    """Request ids, tenant names, parameters: what replies repeat."""
    raw = b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    encoded = "".join(f"%{ord(each):02x}" for each in value).encode()
    for path in (b"t/" + encoded + b"/query", b"admin/tenants/" + encoded, b"live?a=" + encoded):
        head = send(shared_server, raw % path).partition(b"\r\n\r\n")[0].lower()
        assert b"x-evil" not in head
    header = f"GET /live HTTP/1.1\r\nHost: x\r\nX-Request-ID: {value}\r\nConnection: close\r\n\r\n"
    names = [
        line.partition(b":")[0]
        for line in send(shared_server, header.encode()).partition(b"\r\n\r\n")[0].split(b"\r\n")
    ]
    assert b"X-Evil" not in names
    assert b"x-evil" not in names


def test_text_of_a_tenant_breaks_no_stream_of_events(server: ServerProcess) -> None:
    """Seed 2: SSE built by gluing strings. A value with line breaks stays within one event."""
    import httpx2

    tenant = server.new_tenant()
    server.sql(tenant, "run", "CREATE TABLE notes (text TEXT)")
    evil = "a\n\nevent: evil\ndata: {}\n\nid: 99\r\rretry: 1"
    headers = {"Authorization": f"Bearer {server.admin_token}", "X-Tenant-ID": tenant}
    names: list[str] = []
    data: list[str] = []
    url = server.url + "/changes"
    with httpx2.stream("GET", url, headers=headers, timeout=20, trust_env=False) as stream:
        assert stream.status_code == 200
        lines = stream.iter_lines()
        server.sql(tenant, "run", "INSERT INTO notes VALUES (?)", [evil])
        for line in lines:
            field, _, value = line.partition(":")
            if field == "event":
                names.append(value.strip())
            if field == "data":
                data.append(value)
            if field == "data" and "notes" in value:
                break
    assert "evil" not in names
    assert "\\n\\nevent: evil" in data[-1]


# --- secrets ----------------------------------------------------------------------------------


def test_no_secret_reaches_the_log_or_a_file(start_server: Callable[..., ServerProcess]) -> None:
    """Seed 2: L836, L882, L1430: URLs and whole errors were logged. At the most talkative level."""
    token, statement, parameter, query, path, body, header, password = CANARIES
    server = start_server(log_level="debug")
    tenant = server.new_tenant()
    given = server.new_token(tenant)
    server.sql(tenant, "query", f"SELECT '{statement}'")
    server.sql(tenant, "query", f"SELEC '{statement}'")
    server.sql(tenant, "query", "SELECT ?", [parameter])
    server.sql(tenant, "query", "SELECT 1", token=token)
    server.sql(tenant, "query", "SELECT 1", headers={"X-Secret": header, "Cookie": header})
    server.request("GET", f"/live?token={query}")
    server.request("GET", f"/{path}/x")
    server.request("GET", f"/admin/tenants/{path}")
    server.request("POST", "/query", content=body.encode(), tenant=tenant)
    send(server, b"GARBAGE " + body.encode() + b"\r\n\r\n")
    account = {"email": "a@example.com", "name": "A", "password": password}
    signed = server.request("POST", "/auth/signup", json=account, token=None, tenant=tenant)
    server.request("POST", "/auth/login", json=account, token=None, tenant=tenant)
    server.stop()
    session = signed.json().get("token", "none was given") if signed.status == 201 else "none"
    secrets = [*CANARIES, given, session, server.admin_token]
    assert [each for each in secrets if each in server.log_text] == []
    stored = b"".join(each.read_bytes() for each in files(server.data_dir))
    assert stored
    assert [each for each in secrets if each.encode() in stored] == []


def files(folder: Path) -> Iterator[Path]:
    """Databases, commit log, bucket."""
    return (each for each in folder.rglob("*") if each.is_file())


# --- the admin's own listener -----------------------------------------------------------------


def test_with_a_listener_of_its_own_the_admin_is_not_on_the_public_one(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(admin_listen="127.0.0.1:0", tenant_creation="auto")
    announced = next(line for line in server.announced if line.startswith("admin:"))
    public, admin = server.url, announced.rpartition(" ")[2]
    assert public != admin
    paths = ["/admin/tenants", "/metrics", "/admin/migrations", "/%61dmin/tenants", "/admin/"]
    for path in [*paths, "//admin/tenants", "/admin//tenants"]:
        reply = server.request("GET", path)
        assert (reply.status, reply.code) == (404, "not_found"), path
    assert server.sql("acme", "query", "SELECT 1 AS one").status == 200
    server.url = admin
    server._http.base_url = admin  # type: ignore[assignment]
    assert server.request("GET", "/admin/tenants").status == 200
    assert server.request("GET", "/metrics").status == 200
    assert server.request("GET", "/admin/tenants", token=None).status == 401


def test_the_public_listener_does_not_believe_a_host_header(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(admin_listen="127.0.0.1:0")
    announced = next(line for line in server.announced if line.startswith("admin:"))
    host = announced.rpartition("/")[2]
    for headers in ({"Host": host}, {"X-Forwarded-Host": host, "X-Forwarded-Port": "1"}):
        assert server.request("GET", "/admin/tenants", headers=headers).status == 404
