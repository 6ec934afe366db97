"""Durable objects over HTTP: their own routes, and the public door of their program."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.server import ADMIN_TOKEN, ServerProcess

TOKEN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that runs tests/support/routed_app.py."""
    server = ServerProcess(
        tmp_path_factory.mktemp("routed") / "data",
        app="tests.support.routed_app:app",
        body_bytes_max=100_000,
    )
    yield server
    server.kill()


def raw_request(server: ServerProcess, method: str, target: str, **headers: str) -> bytes:
    """The whole reply to a request whose target goes out as it is."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        reply = b""
        while part := connection.recv(65_536):
            reply += part
    return reply


def open_socket(server: ServerProcess, path: str, **headers: str) -> ClientConnection:
    return connect(
        server.url.replace("http:", "ws:") + path,
        additional_headers={**TOKEN, **headers},
        compression=None,
        proxy=None,
    )


# --- fetch ------------------------------------------------------------------------------------


def test_an_object_gets_method_path_query_headers_and_body(program: ServerProcess) -> None:
    reply = program.request(
        "PUT", "/objects/echo/lobby/a/b?x=1&y=%20", content=b"hi", headers={"X-Mine": "v"}
    )
    assert reply.status == 200
    seen = reply.json()
    assert (seen["method"], seen["path"], seen["body"]) == ("PUT", "/a/b", "hi")
    assert seen["query"] == {"x": "1", "y": " "}
    assert seen["url"] == f"{program.url}/a/b?x=1&y=%20"
    assert seen["headers"]["x-mine"] == "v"
    assert seen["name"] == "lobby"


@pytest.mark.parametrize(
    ("target", "name", "path"),
    [
        ("/objects/echo/lobby", "lobby", "/"),
        ("/objects/echo/lobby/", "lobby", "/"),
        ("/objects/echo/a%2Fb/c", "a/b", "/c"),
        ("/objects/echo/caf%C3%A9/c%2Fd", "café", "/c/d"),
        ("/objects/echo/%40x", "@x", "/"),
        ("/objects/echo/%40" + "0" * 64, "@" + "0" * 64, "/"),
        ("/objects/echo/a+b%20c//d", "a+b c", "//d"),
    ],
)
def test_a_name_is_one_segment_of_the_path_percent_decoded(
    program: ServerProcess, target: str, name: str, path: str
) -> None:
    reply = raw_request(program, "GET", target, **TOKEN)
    seen = json.loads(reply.partition(b"\r\n\r\n")[2])
    assert (seen["name"], seen["path"]) == (name, path)


def test_an_object_is_found_by_its_id_too(program: ServerProcess) -> None:
    program.request("POST", "/rpc/echo/by-id/count")
    listed = program.request("GET", "/admin/objects/echo?prefix=by-id").json()["objects"]
    reply = program.request("POST", f"/rpc/echo/@{listed[0]['id']}/count")
    assert reply.json() == {"result": 2}
    assert program.request("GET", f"/objects/echo/@{listed[0]['id']}/x").json()["path"] == "/x"


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/objects/nowhere/x/", 404, "namespace_not_found"),
        ("/objects/Echo/x/", 404, "namespace_not_found"),
        ("/objects/tenant-database/x/", 404, "namespace_not_found"),
        ("/objects/echo/%FF/", 400, "invalid_object_name"),
        ("/objects/%FF/x/", 400, "invalid_object_name"),
        ("/objects/echo/" + "x" * 2_000, 400, "invalid_object_name"),
        ("/objects/echo/@" + "0" * 64, 400, "invalid_object_id"),
        ("/objects/echo", 404, "not_found"),
        ("/objects/echo//x", 404, "not_found"),
        ("/objects", 404, "not_found"),
        ("/objects/mute/x/", 404, "no_fetch_handler"),
    ],
)
def test_an_address_that_means_no_object_is_refused(
    program: ServerProcess, target: str, status: int, code: str
) -> None:
    head, _, body = raw_request(program, "GET", target, **TOKEN).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert json.loads(body)["code"] == code


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "DELETE", "QUERY"])
def test_every_method_reaches_the_object(program: ServerProcess, method: str) -> None:
    reply = program.request(method, "/objects/echo/lobby/x", headers={"Origin": "https://a.b"})
    assert reply.status == 200
    if method == "HEAD":
        assert reply.body == b"" and int(reply.headers["content-length"]) > 100
    else:
        assert reply.json()["method"] == method


def test_the_object_sees_the_request_id_and_not_the_admin_token(program: ServerProcess) -> None:
    reply = program.request("GET", "/objects/echo/lobby/x", headers={"X-Request-ID": "mine-1"})
    seen = reply.json()["headers"]
    assert seen["x-request-id"] == reply.headers["x-request-id"] == "mine-1"
    assert "authorization" not in seen


def test_status_and_headers_are_the_objects_own(program: ServerProcess) -> None:
    for code in (200, 201, 204, 304, 404, 418, 503, 599):
        reply = program.request("GET", f"/objects/echo/lobby/status?code={code}")
        assert (reply.status, reply.headers["x-own"], reply.body) == (code, "1", b"")
    cookies = program.request("GET", "/objects/echo/lobby/cookies").headers.get_list("set-cookie")
    assert cookies == ["a=1", "b=2"]


def test_a_page_of_an_object_may_do_what_its_own_headers_say(program: ServerProcess) -> None:
    headers = program.request("GET", "/objects/echo/lobby/page").headers
    assert headers.get_list("content-security-policy") == ["default-src *"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "x-frame-options" not in headers
    assert headers.get_list("x-request-id") != ["mine"]


@pytest.mark.parametrize("path", ["boom", "sql-error", "nonsense", "empty", "key", "forbidden"])
def test_what_fails_in_an_object_is_told_to_the_log_and_to_nobody_else(
    program: ServerProcess, path: str
) -> None:
    reply = program.request("GET", f"/objects/echo/failing/{path}")
    assert (reply.status, reply.code) == (500, "internal_error")
    assert reply.json()["error"] == "Internal error"
    request_id = reply.json()["requestId"]

    def lines() -> list[dict[str, Any]]:
        failed = program.log_lines("request_failed")
        return [line for line in failed if line["requestId"] == request_id]

    program.wait_for(lambda: bool(lines()), "the log")
    (line,) = lines()
    assert (line["namespace"], line["object"]) == ("echo", "failing")
    assert line["message"]
    assert "tests/support/routed_app.py" in line["traceback"] or path == "nonsense"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("invalid", 400, "invalid_json"),
        ("argument?a=b", 400, "invalid_arguments"),
        ("teapot", 404, "no_coffee"),
    ],
)
@pytest.mark.parametrize("below", ["/objects/echo/lobby/", "/echo/lobby/"])
def test_what_a_handler_says_of_the_request_is_the_clients_to_know(
    program: ServerProcess, below: str, path: str, status: int, code: str
) -> None:
    reply = program.request("POST", below + path, content=b"{")
    assert (reply.status, reply.code) == (status, code)


def test_every_line_of_the_log_names_the_object(program: ServerProcess) -> None:
    program.request("GET", "/objects/echo/in%22the%22log/x", headers={"X-Request-ID": "logged-1"})

    def lines() -> list[dict[str, Any]]:
        found = program.log_lines("request")
        return [line for line in found if line["requestId"] == "logged-1"]

    program.wait_for(lambda: bool(lines()), "the log")
    (line,) = lines()
    assert (line["namespace"], line["object"]) == ("echo", 'in"the"log')
    assert line["route"] == "/objects/{namespace}/{name}/{path}"
    assert "the" not in line["route"]


# --- streams ----------------------------------------------------------------------------------


def test_a_stream_passes_through_piece_by_piece(program: ServerProcess) -> None:
    reply = program.request("GET", "/objects/echo/lobby/words")
    assert reply.body == b"one two"
    assert reply.headers["transfer-encoding"] == "chunked"


def test_a_client_that_leaves_ends_the_stream(program: ServerProcess) -> None:
    def ended() -> int:
        return int(program.request("GET", "/objects/echo/streaming/ended").body)

    before = ended()
    host, port = program.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", "/objects/echo/streaming/stream", headers=TOKEN)
    reply = connection.getresponse()
    assert reply.read(6) == b"data: "
    assert ended() == before
    reply.close()
    connection.close()
    program.wait_for(lambda: ended() == before + 1, "the end of the stream")


def test_a_stream_that_fails_is_cut_off_and_not_ended(program: ServerProcess) -> None:
    with pytest.raises(Exception, match=r"incomplete|disconnected|closed"):
        program.request("GET", "/objects/echo/lobby/broken-stream")


def test_an_endless_stream_does_not_keep_the_server_from_stopping(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(app="tests.support.routed_app:app", shutdown_seconds=20)
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", "/objects/echo/lobby/stream", headers=TOKEN)
    reply = connection.getresponse()
    assert reply.read(6) == b"data: "
    assert server.stop() == 0
    assert "without completing" not in server.log_text
    reply.read()
    connection.close()


# --- RPC --------------------------------------------------------------------------------------


def test_a_method_is_called_with_positional_and_named_arguments(program: ServerProcess) -> None:
    reply = program.request("POST", "/rpc/echo/lobby/add", json={"args": [1], "kwargs": {"b": 5}})
    assert reply.json() == {"result": 6}
    assert reply.headers["dosql-bookmark"]
    assert program.request("POST", "/rpc/echo/lobby/add", json={"args": [1]}).json() == {
        "result": 3
    }


@pytest.mark.parametrize(
    ("target", "body", "status", "code"),
    [
        ("/rpc/echo/x/_private", b"", 404, "method_not_found"),
        ("/rpc/echo/x/fetch", b"", 404, "method_not_found"),
        ("/rpc/echo/x/nothing", b"", 404, "method_not_found"),
        ("/rpc/echo/x/add/more", b"", 404, "method_not_found"),
        ("/rpc/nowhere/x/add", b"", 404, "namespace_not_found"),
        ("/rpc/echo/x/add", b"", 400, "invalid_arguments"),
        ("/rpc/echo/x/add", b'{"args": ["1"]}', 400, "invalid_arguments"),
        ("/rpc/echo/x/add", b"{", 400, "invalid_json"),
        ("/rpc/echo/x/add", b"[1]", 400, "invalid_request"),
        ("/rpc/echo/x/fail", b"", 500, "object_error"),
        ("/rpc/echo/x/one_of_none", b"", 400, "not_one_row"),
        ("/rpc/echo/x/add", b" " * 100_001, 413, "body_too_large"),
    ],
)
def test_a_call_that_cannot_be_made_says_why(
    program: ServerProcess, target: str, body: bytes, status: int, code: str
) -> None:
    reply = program.request("POST", target, content=body)
    assert (reply.status, reply.code) == (status, code)


def test_a_call_is_a_post_of_json(program: ServerProcess) -> None:
    reply = program.request("GET", "/rpc/echo/x/add")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = program.request(
        "POST", "/rpc/echo/x/add", content=b"a=1", headers={"Content-Type": "text/plain"}
    )
    assert reply.status == 415


def test_a_call_with_a_key_runs_once(program: ServerProcess) -> None:
    key = {"Idempotency-Key": "k1"}
    first = program.request("POST", "/rpc/echo/once/count", headers=key)
    second = program.request("POST", "/rpc/echo/once/count", headers=key)
    assert first.json() == second.json() == {"result": 1}
    assert second.headers["idempotent-replayed"] == "true"
    other = program.request("POST", "/rpc/echo/once/count", json={"args": []}, headers=key)
    assert other.status == 409 or other.status == 400
    bad = program.request("POST", "/rpc/echo/once/count", headers={"Idempotency-Key": "a b"})
    assert bad.code == "invalid_idempotency_key"


# --- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/objects/echo/lobby/x"),
        ("GET", "/objects/nowhere/lobby/x"),
        ("POST", "/rpc/echo/lobby/add"),
        ("GET", "/admin/objects/echo"),
    ],
)
def test_only_the_admin_token_opens_the_routes_of_objects(
    program: ServerProcess, method: str, path: str
) -> None:
    tenant = program.new_tenant()
    for token, status in (
        (None, 401),
        ("wrong", 401),
        (program.new_token(tenant), 403),
    ):
        assert program.request(method, path, token=token).status == status


# --- the list ---------------------------------------------------------------------------------


def test_objects_are_listed_by_name_page_by_page(program: ServerProcess) -> None:
    names = [f"list-{letter}" for letter in "cab"]
    for name in names:
        program.request("POST", f"/rpc/echo/{name}/count")
    first = program.request("GET", "/admin/objects/echo?prefix=list-&limit=2").json()
    assert [each["name"] for each in first["objects"]] == ["list-a", "list-b"]
    assert set(first["objects"][0]) == {
        "name",
        "id",
        "createdAt",
        "lastUsedAt",
        "sizeBytes",
        "state",
        "sockets",
        "durability",
    }
    rest = program.request(
        "GET", f"/admin/objects/echo?prefix=list-&limit=2&cursor={first['cursor']}"
    ).json()
    assert [each["name"] for each in rest["objects"]] == ["list-c"]
    assert rest["cursor"] is None
    assert program.request("GET", "/admin/objects/nowhere").code == "namespace_not_found"


# --- WebSockets -------------------------------------------------------------------------------


def test_a_websocket_goes_to_the_object(program: ServerProcess) -> None:
    with open_socket(program, "/objects/echo/socket/chat?name=Ada") as ws:
        assert ws.response is not None
        assert ws.response.headers["x-from"] == "object"
        assert ws.response.headers["x-request-id"]
        assert ws.recv() == "welcome /chat {'name': 'Ada'}"
        ws.send("hello")
        assert ws.recv() == "hello"
        assert program.metric("dosql_open_websockets") == 1
        ws.send(b"\x00\x01")
        assert ws.recv() == b"\x00\x01"


@pytest.mark.parametrize(
    ("path", "with_token", "status", "body"),
    [
        ("/objects/echo/socket/refused", True, 403, b"not here"),
        ("/objects/echo/socket/chat", False, 401, b"invalid_token"),
        ("/objects/nowhere/socket/chat", True, 404, b"namespace_not_found"),
        ("/objects/mute/socket/chat", True, 404, b"no_fetch_handler"),
        ("/query", True, 404, b"not_found"),
        ("/crash", True, 500, b"internal_error"),
        ("/objects/echo/socket/unaccepted", True, 500, b"internal_error"),
    ],
)
def test_a_refused_websocket_is_an_http_reply(
    program: ServerProcess, path: str, with_token: bool, status: int, body: bytes
) -> None:
    authorization = TOKEN["Authorization"] if with_token else "Bearer wrong"
    with pytest.raises(InvalidStatus) as caught:
        open_socket(program, path, Authorization=authorization)
    reply = caught.value.response
    assert reply.status_code == status
    assert body in reply.body
    assert reply.headers["x-request-id"]


def test_a_websocket_for_somebody_who_asked_for_none_is_refused(program: ServerProcess) -> None:
    reply = program.request("GET", "/objects/echo/socket/upgrade")
    assert (reply.status, reply.code) == (426, "upgrade_required")


# --- the public door --------------------------------------------------------------------------


def test_the_door_needs_no_token_and_gets_what_is_not_the_servers(program: ServerProcess) -> None:
    seen = program.request("GET", "/any/path?x=1", token=None).json()
    assert (seen["path"], seen["query"], seen["greeting"]) == ("/any/path", {"x": "1"}, "hello")
    assert program.request("GET", "/", token=None).json()["path"] == "/"
    assert program.request("GET", "/adminx", token=None).json()["path"] == "/adminx"
    assert program.request("GET", "/query", token=None).status == 405
    assert program.request("GET", "/admin/tenants", token=None).status == 401
    assert program.request("GET", "/t/acme/x", token=None).status == 404
    assert program.request("GET", "/live", token=None).json() == {"status": "alive"}


def test_the_door_sees_the_authorization_of_its_own_users(program: ServerProcess) -> None:
    seen = program.request("GET", "/any", token="a-user").json()
    assert seen["headers"]["authorization"] == "Bearer a-user"


def test_the_door_forwards_to_an_object_under_another_path(program: ServerProcess) -> None:
    seen = program.request("POST", "/echo/bob/x/y?z=1", content=b"hi", token=None).json()
    assert (seen["name"], seen["path"], seen["body"]) == ("bob", "/x/y", "hi")
    assert seen["query"] == {"z": "1"}


def test_the_door_forwards_a_websocket(program: ServerProcess) -> None:
    url = program.url.replace("http:", "ws:") + "/echo/bob/room"
    with connect(url, compression=None, proxy=None) as ws:
        assert ws.recv() == "welcome /room {}"
        ws.send("hello")
        assert ws.recv() == "hello"


@pytest.mark.parametrize(
    "path",
    [
        *("/crash", "/missing", "/none"),
        *("/echo/bob/boom", "/echo/bob/sql-error", "/echo/bob/empty", "/echo/bob/key"),
    ],
)
def test_what_fails_behind_the_door_stays_there(program: ServerProcess, path: str) -> None:
    reply = program.request("GET", path, token=None)
    assert (reply.status, reply.json()["error"]) == (500, "Internal error")
    assert b"secret" not in reply.body


def test_a_name_that_no_object_can_have_is_the_clients_to_know(program: ServerProcess) -> None:
    reply = program.request("GET", f"/echo/{'a' * 1_025}", token=None)
    assert (reply.status, reply.code) == (400, "invalid_object_name")


def test_what_is_left_for_later_is_done_after_the_reply(program: ServerProcess) -> None:
    reply = program.request("GET", "/later", token=None)
    assert reply.body.decode() == reply.headers["x-request-id"]

    def counted() -> bool:
        listed = program.request("GET", "/admin/objects/echo?prefix=later").json()["objects"]
        return bool(listed)

    program.wait_for(counted, "what was left for later")


def test_what_is_left_for_later_is_done_before_the_server_ends(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(app="tests.support.routed_app:app")
    server.request("GET", "/later", token=None)
    assert server.stop() == 0
    server.restart()
    assert server.request("POST", "/rpc/echo/later/count").json() == {"result": 2}


def test_metrics_count_routes_and_not_paths(program: ServerProcess) -> None:
    program.request("GET", "/some/path/of/the/app", token=None)
    text = program.request("GET", "/metrics").body.decode()
    assert 'dosql_requests_total{method="GET",route="app",status="200"}' in text
    assert 'route="/objects/{namespace}/{name}/{path}"' in text
    assert "of/the/app" not in text


# --- a mounted application --------------------------------------------------------------------


def test_a_mounted_application_is_the_door(start_server: Callable[..., ServerProcess]) -> None:
    """It is started and stopped, calls objects, passes requests on, and has its own sockets."""
    server = start_server(app="tests.support.mounted_app:app")
    reply = server.request("GET", "/visits/home", token=None)
    assert reply.json() == {"visits": 1, "started": True}
    assert len(reply.headers.get_list("x-request-id")) == 1
    assert server.request("GET", "/nothing", token=None).status == 404
    assert server.request("GET", "/raw/x", token=None).body == b"raw /inner path"
    url = server.url.replace("http:", "ws:")
    with connect(url + "/raw/x", compression=None, proxy=None) as ws:
        assert ws.recv() == "/inner path"
    with connect(url + "/echo", compression=None, proxy=None) as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
        with pytest.raises(ConnectionClosed):
            ws.recv()
    assert server.stop() == 0
