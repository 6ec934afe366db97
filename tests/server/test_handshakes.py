"""A wrong WebSocket handshake is answered as every error is, with and without an app."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from tests.support.server import ServerProcess

RIGHT = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture(scope="module", params=["tests.support.socket_app:app", None])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("handshakes") / "data", app=request.param)
    yield server
    server.kill()


def answer(
    server: ServerProcess, method: str = "GET", **changes: str | None
) -> http.client.HTTPResponse:
    """To a handshake with these headers changed; None: left out."""
    headers = RIGHT | {name.replace("_", "-"): value for name, value in changes.items()}
    line = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        path = "/t/acme/changes"
        line.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            if value is not None:
                line.putheader(name, value)
        line.endheaders()
        return line.getresponse()
    finally:
        line.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Sec_WebSocket_Key": None}, "missing Sec-WebSocket-Key header"),
        ({"Sec_WebSocket_Key": "xx"}, "invalid Sec-WebSocket-Key header: xx"),
        ({"Sec_WebSocket_Version": None}, "missing Sec-WebSocket-Version header"),
        ({"Sec_WebSocket_Version": "8"}, "invalid Sec-WebSocket-Version header: 8"),
        ({"X_Long": "x" * 10_000}, "no more than 8192 bytes"),
    ],
)
def test_a_wrong_handshake_gets_the_error_shape(
    server: ServerProcess, changes: dict[str, str | None], reason: str
) -> None:
    response = answer(server, **changes)
    assert response.status == 400
    assert response.headers["content-type"] == "application/json"
    body = json.loads(response.read())
    assert body["code"] == "websocket_protocol_error"
    assert reason in body["error"]
    assert body["requestId"] == response.headers["x-request-id"]


def test_a_handshake_by_another_method_is_told_which_one_is_right(server: ServerProcess) -> None:
    response = answer(server, "POST")
    assert response.status == 405 and response.headers["allow"] == "GET"
    assert json.loads(response.read())["code"] == "websocket_protocol_error"


def test_a_right_handshake_is_answered_by_the_route(server: ServerProcess) -> None:
    response = answer(server)
    assert response.status in (401, 404)
    assert json.loads(response.read())["code"] != "websocket_protocol_error"
