"""What holds for every reply, and what is refused before any route: over real sockets."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.support.server import ServerProcess

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
REPLIES = [
    ("GET", "/live", 200),
    ("GET", "/nope", 404),
    ("GET", "/query", 405),
    ("DELETE", "/admin/tenants", 405),
    ("POST", "/query", 401),
    ("GET", "/admin/tenants", 401),
    ("OPTIONS", "/ready", 204),
    ("GET", "/schema/", 200),
]


def converse(server: ServerProcess, *pieces: bytes, until_closed: bool = False) -> bytes:
    """Send bytes as they are and return what comes back: one reply, or all until the close."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while until_closed or b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
        return received


def head(server: ServerProcess, *headers: str, route: str = "POST /query") -> bytes:
    """The head of a request of the admin's for tenant ``edge``."""
    lines = [
        f"{route} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {server.admin_token}",
        "X-Tenant-ID: edge",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize(("method", "path", "status"), REPLIES)
def test_every_reply_has_a_request_id_and_the_security_headers(
    shared_server: ServerProcess, method: str, path: str, status: int
) -> None:
    reply = shared_server.request(method, path, token=None)
    assert reply.status == status
    assert UUID4.fullmatch(reply.headers["x-request-id"])
    assert "content-security-policy" in reply.headers
    for name, value in SECURITY_HEADERS.items():
        assert reply.headers[name] == value
    assert "server" not in reply.headers
    if status >= 400:
        assert reply.json()["requestId"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("given", ["abc", "A-1._z", "x" * 128])
def test_a_clients_own_request_id_is_kept(shared_server: ServerProcess, given: str) -> None:
    reply = shared_server.request("GET", "/nope", headers={"X-Request-ID": given})
    assert reply.headers["x-request-id"] == reply.json()["requestId"] == given


@pytest.mark.parametrize("given", ["", "a b", 'a"b', "x" * 129, "é", "a,b"])
def test_any_other_request_id_is_replaced(shared_server: ServerProcess, given: str) -> None:
    headers = {"X-Request-ID": given.encode("utf-8")}
    reply = shared_server.request("GET", "/live", headers=headers)  # type: ignore[arg-type]
    assert UUID4.fullmatch(reply.headers["x-request-id"])


def test_seed_0_14_each_request_has_an_id_of_its_own(shared_server: ServerProcess) -> None:
    ids = {shared_server.request("GET", "/live").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


# --- bodies -----------------------------------------------------------------------------------


@pytest.fixture
def small(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that takes bodies of 1,000 bytes."""
    return start_server(body_bytes_max=1_000)


def test_a_body_with_too_large_a_length_is_refused(small: ServerProcess) -> None:
    reply = small.request("POST", "/query", content=b"x" * 1_001, tenant="edge")
    assert (reply.status, reply.code) == (413, "body_too_large")


def test_a_chunked_body_is_refused_once_it_grows_too_large(small: ServerProcess) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (500, b"x" * 500) for _ in range(3)) + b"0\r\n\r\n"
    reply = converse(small, head(small, "Transfer-Encoding: chunked"), chunks, until_closed=True)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in reply


def test_a_chunked_body_within_the_limit_is_taken(small: ServerProcess) -> None:
    body = b'{"sql": "SELECT 1 AS one"}'
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    request = head(small, "Transfer-Encoding: chunked", "Connection: close") + chunks
    reply = converse(small, request, until_closed=True)
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b'{"rows":[{"one":1}]}' in reply


def test_a_huge_body_is_refused_without_being_read(small: ServerProcess) -> None:
    """The client has sent nothing of its body yet, and is told not to."""
    reply = converse(small, head(small, "Content-Length: 1000000000000"), until_closed=True)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in reply


def test_a_client_that_asks_first_is_not_told_to_continue(small: ServerProcess) -> None:
    request = head(small, "Content-Length: 2000", "Expect: 100-continue")
    assert converse(small, request, until_closed=True).startswith(b"HTTP/1.1 413 ")


def test_an_endless_chunked_body_does_not_grow_the_server(small: ServerProcess) -> None:
    """64 MB of chunks: the reply is a refusal or a closed connection, and memory stays flat."""

    def resident_kib() -> int:
        return psutil.Process(small.process.pid).memory_info().rss // 1024

    small.request("POST", "/query", content=b"x" * 5_000, tenant="edge")
    before = resident_kib()
    chunk = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
    host, port = small.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head(small, "Transfer-Encoding: chunked"))
        try:
            for _ in range(1024):
                connection.sendall(chunk)
        except OSError:
            pass  # closed on us, as it should be
    assert resident_kib() - before < 16 * 1024


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "gzip, identity"])
def test_an_encoded_body_is_refused(shared_server: ServerProcess, encoding: str) -> None:
    """No decompression, no decompression bomb."""
    headers = {"Content-Encoding": encoding}
    reply = shared_server.request("POST", "/query", content=b"x", headers=headers, tenant="edge")
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


CONTENT_TYPES = [
    (None, 200),
    ("application/json", 200),
    ("application/json; charset=utf-8", 200),
    ("Application/JSON", 200),
    ("text/plain", 415),
    ("application/x-www-form-urlencoded", 200),  # what curl -d says of any body
    ("multipart/form-data; boundary=x", 415),
    ("application/msgpack", 415),
    ("application/jsonx", 415),
]


@pytest.mark.parametrize(("content_type", "status"), CONTENT_TYPES)
@pytest.mark.parametrize("path", ["/query", "/admin/migrations"])
def test_only_json_bodies_are_taken(
    shared_server: ServerProcess, path: str, content_type: str | None, status: int
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = b'{"sql": "SELECT 1 AS one"}' if path == "/query" else b'{"dryRun": true}'
    reply = shared_server.request("POST", path, content=body, headers=headers, tenant="edge")
    assert reply.status == status
    assert reply.code == (None if status == 200 else "unsupported_media_type")


# --- what is not HTTP as we speak it ----------------------------------------------------------


def test_headers_without_end_are_refused(shared_server: ServerProcess) -> None:
    lines = b"GET /live HTTP/1.1\r\nHost: x\r\n" + b"X-Pad: %b\r\n" % (b"y" * 8_000) * 9
    reply = converse(shared_server, lines, until_closed=True)
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"headers_too_large"' in reply


def test_a_head_that_comes_at_once_and_is_too_large_is_refused(
    shared_server: ServerProcess,
) -> None:
    lines = b"GET /live HTTP/1.1\r\nHost: x\r\n" + b"X-Pad: %b\r\n" % (b"y" * 8_000) * 9
    reply = converse(shared_server, lines + b"\r\n", until_closed=True)
    assert reply.startswith(b"HTTP/1.1 431 ")


def test_a_large_body_is_not_taken_for_a_large_head(shared_server: ServerProcess) -> None:
    """Head and body in one piece, twice on one connection."""
    body = b'{"sql": "SELECT 1 AS one"%b}' % (b" " * 150_000)
    request = head(shared_server, f"Content-Length: {len(body)}") + body
    last = head(shared_server, f"Content-Length: {len(body)}", "Connection: close") + body
    reply = converse(shared_server, request + last, until_closed=True)
    assert reply.count(b"HTTP/1.1 200 OK") == 2


IMPATIENT = """
import server.protocol
server.protocol.HEAD_S_MAX = server.protocol.BODY_PAUSE_S_MAX = 0.2
server.protocol.SWEEP_S = 0.05
"""


def test_a_client_that_does_not_finish_its_request_is_cut_off(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Slowloris: some bytes of a head, or of a body, and then nothing; idle ones may stay."""
    server = start_server(prelude=IMPATIENT)
    host, port = server.url.removeprefix("http://").split(":")
    idle = socket.create_connection((host, int(port)), timeout=20)
    for started in (b"GET /li", head(server, "Content-Length: 100") + b"{"):
        assert converse(server, started, until_closed=True) == b""
    idle.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert idle.recv(4096).startswith(b"HTTP/1.1 200 ")
    idle.close()


def test_one_endless_header_is_refused(shared_server: ServerProcess) -> None:
    lines = b"GET /live HTTP/1.1\r\nX-Pad: " + b"y" * 70_000
    assert converse(shared_server, lines, until_closed=True).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /query HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /query HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /query HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"GET /live HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_the_parser_refuses_is_answered_in_json(
    shared_server: ServerProcess, request_bytes: bytes
) -> None:
    """Among them the two ways to smuggle a request: a length twice, and a length beside chunks."""
    reply = converse(shared_server, request_bytes, until_closed=True)
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_http"' in reply


def test_a_websocket_upgrade_is_answered_as_plain_http(shared_server: ServerProcess) -> None:
    headers = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    reply = converse(shared_server, head(shared_server, *headers, route="GET /live"))
    assert reply.startswith(b"HTTP/1.1 200 ")


# --- CORS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that lets one origin in."""
    data = tmp_path_factory.mktemp("cors") / "data"
    server = ServerProcess(data, cors_origins=["https://app.example.com"])
    yield server
    server.kill()


ORIGINS = [
    ("https://app.example.com", True),
    ("http://app.example.com", False),
    ("https://app.example.com.evil.test", False),
    ("https://evil.test", False),
    ("null", False),
]


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS)
def test_only_listed_origins_may_read(cors: ServerProcess, origin: str, allowed: bool) -> None:
    preflight = cors.request(
        "OPTIONS",
        "/query",
        token=None,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-tenant-id",
        },
    )
    actual = cors.request(
        "POST",
        "/query",
        json={"sql": "SELECT 1 AS one"},
        headers={"Origin": origin},
        tenant="edge",
    )
    assert actual.status == 200
    expected = origin if allowed else None
    assert preflight.headers.get("access-control-allow-origin") == expected
    assert actual.headers.get("access-control-allow-origin") == expected
    if allowed:
        assert "origin" in actual.headers["vary"].lower()
        assert "dosql-bookmark" in actual.headers["access-control-expose-headers"].lower()


def test_without_a_list_no_origin_may_read(shared_server: ServerProcess) -> None:
    reply = shared_server.request(
        "POST",
        "/query",
        json={"sql": "SELECT 1 AS one"},
        headers={"Origin": "https://app.example.com"},
        tenant="edge",
    )
    assert reply.status == 200
    assert "access-control-allow-origin" not in reply.headers
