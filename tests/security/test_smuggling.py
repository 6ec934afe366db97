"""Request smuggling: what two HTTP servers in a row could read in two ways is refused by ours.

Over raw sockets. Each probe hides a second request behind the first; a server that lets itself be
confused answers it.
"""

from __future__ import annotations

import socket

import pytest

from tests.support.server import ServerProcess

HEAD = b"POST /live HTTP/1.1\r\nHost: x\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def converse(server: ServerProcess, data: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


AMBIGUOUS = {
    "a length and chunks": HEAD + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunks and a length": HEAD + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 33\r\n\r\n" + HIDDEN,
    "the same length twice": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a list of lengths": HEAD + b"Content-Length: 0, 0\r\n\r\n" + HIDDEN,
    "a length with a sign": HEAD + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a hexadecimal length": HEAD + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "an empty length": HEAD + b"Content-Length: \r\n\r\n" + HIDDEN,
    "a length past 64 bits": HEAD + b"Content-Length: 18446744073709551617\r\n\r\n" + HIDDEN,
    "a folded header": HEAD + b"X: a\r\n Content-Length: 33\r\n\r\n" + HIDDEN,
    "a space before the colon": HEAD + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "a space before the name": HEAD + b" Content-Length: 0\r\n\r\n" + HIDDEN,
    "a header without a colon": HEAD + b"Content-Length\r\n\r\n" + HIDDEN,
    "bare line feeds": b"GET /live HTTP/1.1\nHost: x\n\n" + HIDDEN,
    "a bare line feed in a header": HEAD + b"X: a\nContent-Length: 33\r\n\r\n" + HIDDEN,
    "a bare carriage return": HEAD + b"X: a\rContent-Length: 33\r\n\r\n" + HIDDEN,
    "a NUL in a header": HEAD + b"X: a\0b\r\n\r\n" + HIDDEN,
    "a NUL in a name": HEAD + b"X\0: a\r\n\r\n" + HIDDEN,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a coding that is none": HEAD + b"Transfer-Encoding: identity\r\n\r\n" + HIDDEN,
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice": HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunked in a list": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks in HTTP/1.0": b"POST /live HTTP/1.0\r\nHost: x\r\n"
    + CHUNKED
    + b"\r\n0\r\n\r\n"
    + HIDDEN,
    "a chunk size with 0x": HEAD + CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN,
    "a negative chunk size": HEAD + CHUNKED + b"\r\n-1\r\n\r\n" + HIDDEN,
    "a chunk size past 64 bits": HEAD + CHUNKED + b"\r\n10000000000000000\r\n\r\n" + HIDDEN,
    "a space behind a chunk size": HEAD + CHUNKED + b"\r\n0 \r\n\r\n" + HIDDEN,
    "a chunk line with a bare LF": HEAD + CHUNKED + b"\r\n0\n\r\n" + HIDDEN,
    "a chunk longer than its size": HEAD + CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n" + HIDDEN,
    "two hosts": b"GET /live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET /live HTTP/1.1\r\n\r\n",
    "a URL with another host": b"GET http://evil/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the URL": b"GET /live /x HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /live\r\n\r\n",
    "HTTP/2 unasked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(
    name: str, shared_server: ServerProcess
) -> None:
    received = converse(shared_server, AMBIGUOUS[name])
    assert b" 200 OK" not in received
    assert b"/hidden" not in received
    assert b" 404 " not in received, "the hidden request was answered"
    refusals = received.count(b"HTTP/1.1 400 ") + received.count(b"HTTP/1.1 405 ")
    assert refusals == received.count(b"HTTP/1.1 ")
    assert received.endswith(b"}")
    assert received.count(b'"code":"invalid_http"') == 1


LAST = b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
PLAIN = {
    "a URL with the same host": LAST.replace(b"/live", b"http://x/live") + b"\r\n",
    "chunks with an extension": LAST + CHUNKED + b"\r\n0;a=b\r\n\r\n",
    "empty lines before": b"\r\n\r\n" + LAST + b"\r\n",
    "HTTP/1.0 without a host": b"GET /live HTTP/1.0\r\n\r\n",
    "two requests in one piece": LAST.replace(b"Connection: close\r\n", b"\r\n") + LAST + b"\r\n",
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_the_standard_allows_is_answered(name: str, shared_server: ServerProcess) -> None:
    received = converse(shared_server, PLAIN[name])
    assert received.count(b"HTTP/1.1 200 OK") == 1 + name.startswith("two requests")


def test_a_body_is_never_read_as_a_request(shared_server: ServerProcess) -> None:
    """Of a request whose reply came before its body was looked at."""
    first = b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
    received = converse(shared_server, first + LAST + b"\r\n")
    assert received.count(b"HTTP/1.1 ") == 2
    assert received.index(b"404") < received.index(b"200 OK")


@pytest.mark.parametrize("name", [b"X-Tenant-ID", b"Authorization", b"Idempotency-Key"])
def test_a_trailer_is_no_header(name: bytes, shared_server: ServerProcess) -> None:
    """A proxy that strips headers does not look at what comes behind the body."""
    tenant = shared_server.new_tenant().encode()
    token = b"Bearer " + shared_server.admin_token.encode()
    headers = {b"X-Tenant-ID": tenant, b"Authorization": token, b"Idempotency-Key": b"k"}
    trailer = headers.pop(name)
    body = b'{"sql": "CREATE TABLE IF NOT EXISTS t (a)"}'
    request = b"POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + CHUNKED
    request += b"".join(b"%b: %b\r\n" % pair for pair in headers.items())
    request += b"\r\n%x\r\n%b\r\n0\r\n%b: %b\r\n\r\n" % (len(body), body, name, trailer)
    for _ in range(2):
        received = converse(shared_server, request)
        if name == b"Idempotency-Key":
            assert b" 200 OK" in received
            assert b"idempotent-replayed" not in received
        else:
            assert b" 200 OK" not in received


@pytest.mark.parametrize("method", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_no_header_changes_the_method(method: str, shared_server: ServerProcess) -> None:
    tenant = shared_server.new_tenant()
    headers = {method: "DELETE"}
    path = f"/admin/tenants/{tenant}?_method=DELETE"
    assert shared_server.request("GET", path, headers=headers).json()["name"] == tenant
    assert shared_server.request("GET", f"/admin/tenants/{tenant}").status == 200


@pytest.mark.parametrize("count", [101, 1_000])
def test_too_many_headers_are_refused(count: int, shared_server: ServerProcess) -> None:
    lines = b"".join(b"X-%d: a\r\n" % number for number in range(count - 1))
    received = converse(shared_server, b"GET /live HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    assert received.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"headers_too_large"' in received


def test_100_headers_are_taken(shared_server: ServerProcess) -> None:
    lines = b"".join(b"X-%d: a\r\n" % number for number in range(98))
    received = converse(shared_server, LAST + lines + b"\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")
