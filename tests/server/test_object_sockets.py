"""WebSockets of real objects in a real server: hibernation, automatic responses, close codes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.server import ADMIN_TOKEN, ServerProcess

APP = "tests.support.socket_app:app"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(
        tmp_path_factory.mktemp("halls") / "data",
        app=APP,
        idle_seconds=0.2,
        websocket_bytes_max=50_000,
    )
    yield server
    server.kill()


def join(server: ServerProcess, hall: str, name: str, **options: object) -> ClientConnection:
    return connect(
        f"{server.url.replace('http:', 'ws:')}/objects/hall/{hall}/ws?name={name}",
        additional_headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        proxy=None,
        **options,  # type: ignore[arg-type]
    )


def silent(server: ServerProcess, hall: str, name: str) -> socket.socket:
    """Joined by a client that from then on neither reads, writes nor ends."""
    url = urlsplit(server.url)
    line = socket.create_connection((url.hostname, url.port), timeout=60)
    line.sendall(
        f"GET /objects/hall/{hall}/ws?name={name} HTTP/1.1\r\nHost: test\r\n"
        f"Authorization: Bearer {ADMIN_TOKEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert line.recv(12) == b"HTTP/1.1 101"
    return line


def ask(ws: ClientConnection, text: str) -> str:
    ws.send(text)
    answer = ws.recv(timeout=60)
    assert isinstance(answer, str)
    return answer


def state_of(server: ServerProcess, hall: str) -> dict[str, object]:
    page = server.request("GET", f"/admin/objects/hall?prefix={hall}").json()
    (info,) = page["objects"]
    found: dict[str, object] = info
    return found


def wait_for_hibernation(server: ServerProcess, hall: str) -> None:
    server.wait_for(lambda: state_of(server, hall)["state"] == "hibernated", "hibernation")


def rpc(server: ServerProcess, hall: str, method: str, *args: object) -> object:
    body = {"args": args}
    return server.request("POST", f"/rpc/hall/{hall}/{method}", json=body).json()["result"]


def test_an_object_hibernates_under_its_open_sockets_and_wakes_with_their_attachments(
    program: ServerProcess,
) -> None:
    with join(program, "sleepy", "ada") as ada, join(program, "sleepy", "bob") as bob:
        assert ask(ada, "who") == "ada of 2, life 1"
        wait_for_hibernation(program, "sleepy")
        assert state_of(program, "sleepy")["sockets"] == 2
        assert ask(bob, "who") == "bob of 2, life 2"
        wait_for_hibernation(program, "sleepy")
        ada.close(4100, "tired")
        assert bob.recv(timeout=60) == "ada left: 4100 tired True"
        assert ask(bob, "who") == "bob of 1, life 3"


def test_an_automatic_response_does_not_wake_the_object(program: ServerProcess) -> None:
    """Seed rows 1.2 and 1.17: the shape has a time, and nobody is woken for it."""
    with join(program, "pinged", "ada") as ada:
        assert ask(ada, "pinged") == "never"
        wait_for_hibernation(program, "pinged")
        pong = json.loads(ask(ada, '{"type":"ping"}'))
        assert pong["type"] == "pong"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", pong["timestamp"])
        assert state_of(program, "pinged")["state"] == "hibernated"
        assert ask(ada, "pinged") == "yes"
        assert rpc(program, "pinged", "lives") == 2


def test_a_fixed_automatic_response_is_sent_as_it_stands(program: ServerProcess) -> None:
    with join(program, "fixed", "ada") as ada:
        assert rpc(program, "fixed", "respond", "ping", "pong {timestamp}") is None
        wait_for_hibernation(program, "fixed")
        assert ask(ada, "ping") == "pong {timestamp}"
        assert state_of(program, "fixed")["state"] == "hibernated"
        assert rpc(program, "fixed", "lives") == 2


def test_a_broadcast_reaches_everybody_once_and_in_order(program: ServerProcess) -> None:
    with join(program, "choir", "a") as one, join(program, "choir", "b") as two:
        for number in range(50):
            one.send(f"say verse {number}")
        for ws in (one, two):
            heard = [ws.recv(timeout=60) for _ in range(50)]
            assert heard == [f"{number + 1} verse {number}" for number in range(50)]


def test_an_error_in_a_handler_closes_nothing_and_is_logged(program: ServerProcess) -> None:
    with join(program, "clumsy", "ada") as ada:
        ada.send("fail")
        assert ask(ada, "echo still here") == "still here"
    program.wait_for(lambda: "on purpose" in program.log_text, "the log")


def test_sockets_outlive_a_reset_of_their_object(program: ServerProcess) -> None:
    with join(program, "reset", "ada") as ada, join(program, "reset", "bob") as bob:
        ada.send("abort")
        assert ask(ada, "who") == "ada of 2, life 2"
        assert ask(bob, "who") == "bob of 2, life 2"


def test_messages_that_wait_when_their_object_is_reset_reach_its_next_life(
    program: ServerProcess,
) -> None:
    with join(program, "resets", "ada") as ada, join(program, "resets", "bob") as bob:
        for number in range(100):
            bob.send(f"echo {number}")
            if number % 25 == 0:
                ada.send("abort")
        assert [bob.recv(timeout=60) for _ in range(100)] == [str(n) for n in range(100)]
        assert ask(ada, "who") == "ada of 2, life 5"


def test_close_codes_of_the_object_reach_the_client(program: ServerProcess) -> None:
    with join(program, "closing", "ada") as ada, join(program, "closing", "bob") as bob:
        ada.send("close 4321")
        with pytest.raises(ConnectionClosed):
            ada.recv(timeout=60)
        assert (ada.close_code, ada.close_reason) == (4321, "as you wish")
        left = bob.recv(timeout=60)
        assert isinstance(left, str) and left.startswith("ada left: 4321") and left.endswith("True")


def test_a_connection_that_breaks_is_told_as_1006(program: ServerProcess) -> None:
    with join(program, "broken", "bob") as bob, join(program, "broken", "ada") as ada:
        assert ask(ada, "who") == "ada of 2, life 1"
        ada.socket.shutdown(2)
        text = "ada left: 1006 WebSocket disconnected without sending Close frame. False"
        assert bob.recv(timeout=60) == text


def test_a_client_that_reads_too_slowly_is_closed_with_4008_and_holds_up_nobody(
    program: ServerProcess,
) -> None:
    """What waits for it is bounded: 4 MiB, and what the network takes."""
    text = "x" * 40_000
    with (
        join(program, "slow", "fast") as fast,
        join(program, "slow", "slow", max_queue=1) as slow,
    ):
        sent = 0
        while rpc(program, "slow", "count") == 2:
            for _ in range(20):
                fast.send(f"all {text}")
            assert [fast.recv(timeout=60) for _ in range(20)] == [text] * 20
            sent += 20
            assert sent * len(text) < 4_194_304 + 20_000_000
        received = 0
        with pytest.raises(ConnectionClosed):
            while True:
                assert slow.recv(timeout=60) == text
                received += 1
        assert slow.close_code == 4008
        assert 4_000_000 < received * len(text) <= sent * len(text)
        assert fast.recv(timeout=60) == "slow left: 4008 The client reads too slowly. True"


def test_a_client_that_has_vanished_is_found_out_by_pings(tmp_path: Path) -> None:
    """Nothing comes from it any more, and no end of the connection either."""
    prelude = "import dosql.limits\ndosql.limits.SOCKET_PING_S = 0.5"
    server = ServerProcess(tmp_path / "data", app=APP, prelude=prelude)
    try:
        with join(server, "tunnel", "ada") as ada:
            with silent(server, "tunnel", "bob"):
                text = "bob left: 1006 WebSocket disconnected without sending Close frame. False"
                assert ada.recv(timeout=20) == text
            assert ask(ada, "who") == "ada of 1, life 1"
    finally:
        server.kill()


def test_a_message_beyond_the_setting_closes_with_1009(program: ServerProcess) -> None:
    with join(program, "large", "ada") as ada:
        assert ask(ada, "echo " + "x" * 49_000) == "x" * 49_000
        ada.send("echo " + "x" * 50_000)
        with pytest.raises(ConnectionClosed):
            ada.recv(timeout=60)
        assert ada.close_code == 1009


def test_the_subprotocol_that_the_object_chose_is_agreed_on(program: ServerProcess) -> None:
    with join(program, "spoken", "ada", subprotocols=["chat.v1", "chat.v2"]) as ada:
        assert ada.subprotocol == "chat.v2"


def test_a_handshake_may_be_refused_by_the_object_or_for_want_of_a_token(
    program: ServerProcess,
) -> None:
    with pytest.raises(InvalidStatus) as caught, join(program, "guarded", "nobody"):
        pass
    assert (caught.value.response.status_code, caught.value.response.body) == (403, b"Who are you?")
    address = f"{program.url.replace('http:', 'ws:')}/objects/hall/guarded/ws"
    with pytest.raises(InvalidStatus) as caught, connect(address, proxy=None):
        pass
    assert caught.value.response.status_code == 401


def test_a_shutdown_closes_with_1012(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = ServerProcess(tmp_path_factory.mktemp("ending") / "data", app=APP)
    with join(server, "ending", "ada") as ada, join(server, "ending", "bob") as bob:
        assert server.stop() == 0
        for ws in (ada, bob):
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=60)
            assert ws.close_code == 1012
    assert "Traceback" not in server.log_text
