"""The rows 4.1 to 4.6 of the checklist: examples/chat_room over real sockets."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.examples import (
    Socket,
    public,
    refusal,
    run_program,
    running,
    wait_until_hibernated,
)
from tests.support.server import Reply, ServerProcess

APP = "chat_room.app:app"
_names = itertools.count(1)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(APP, tmp_path_factory.mktemp("page")) as server:
        yield server


@pytest.fixture
def room() -> str:
    """A room that no other test uses."""
    return f"room-{next(_names)}"


def enter(server: ServerProcess, room: str, name: str | None = None, **query: object) -> Socket:
    """Somebody in the room, past their own join."""
    if name is not None:
        query["name"] = name
    text = "&".join(f"{key}={quote(str(value))}" for key, value in query.items())
    return Socket(server, f"/room/{room}?{text}")


def hear(ws: Socket, kind: str) -> Any:
    return ws.receive_type(kind)


# --- the counter -------------------------------------------------------------------------------


def count(server: ServerProcess, name: str, action: str, method: str = "POST") -> Reply:
    return server.request(method, f"/objects/counter/{name}/{action}")


def test_seed_4_1_the_counter_answers_with_plain_text(page: ServerProcess) -> None:
    replies = [
        count(page, "text", action)
        for action in ("increment", "increment", "decrement", "value", "increment")
    ]
    assert [reply.body for reply in replies] == [b"1", b"2", b"1", b"1", b"2"]
    assert all(reply.status == 200 for reply in replies)
    assert replies[0].headers["content-type"].startswith("text/plain")
    assert count(page, "text", "increment", method="GET").body == b"3"
    reply = count(page, "text", "other")
    assert (reply.status, reply.body) == (404, b"Not Found")


def test_seed_4_1_the_value_is_loaded_before_the_first_event(tmp_path: Path) -> None:
    with running(APP, tmp_path, idle_seconds=1) as server:
        assert count(server, "kept", "increment").body == b"1"
        wait_until_hibernated(server, "counter", "kept")
        assert count(server, "kept", "increment").body == b"2"
        server.kill()
        server.restart()
        with ThreadPoolExecutor(8) as pool:  # all of them wake it
            bodies = list(pool.map(lambda _: count(server, "kept", "increment").body, range(20)))
        assert sorted(map(int, bodies)) == list(range(3, 23))


# --- the room ----------------------------------------------------------------------------------


def test_seed_4_2_who_does_not_ask_for_a_websocket_is_refused(
    page: ServerProcess, room: str
) -> None:
    reply = public(page, "GET", f"/room/{room}?name=Ada")
    assert (reply.status, reply.body) == (400, b"Expected WebSocket")


def test_seed_4_2_other_paths_of_the_object_are_404(page: ServerProcess, room: str) -> None:
    reply = page.request("GET", f"/objects/chat-room/{room}/other")
    assert (reply.status, reply.body) == (404, b"Not Found")


@pytest.mark.parametrize("query", [{}, {"name": ""}])
def test_seed_4_2_who_has_no_name_is_anonymous(
    page: ServerProcess, room: str, query: dict[str, str]
) -> None:
    with enter(page, room, **query) as ws:
        assert ws.receive() == {"type": "join", "name": "Anonymous", "count": 1}


@pytest.mark.parametrize("name", ["x" * 65, "a\nb"])
def test_seed_4_2_not_every_text_is_a_name(page: ServerProcess, room: str, name: str) -> None:
    assert refusal(page, f"/room/{room}?name={quote(name)}").status == 400


def test_seed_4_3_everybody_hears_who_comes_and_who_goes(page: ServerProcess, room: str) -> None:
    with enter(page, room, "Ada") as ada:
        assert ada.receive() == {"type": "join", "name": "Ada", "count": 1}
        with enter(page, room, "Bob") as bob:
            joined = {"type": "join", "name": "Bob", "count": 2}
            assert ada.receive() == joined
            assert bob.receive() == joined
        assert ada.receive() == {"type": "leave", "name": "Bob", "count": 1}


def test_seed_4_4_a_message_goes_to_everybody_with_name_and_time(
    page: ServerProcess, room: str
) -> None:
    with enter(page, room, "Ada") as ada, enter(page, room, "Bob") as bob:
        bob.send({"type": "message", "text": "Grüße 👋"})
        heard = hear(ada, "message")
        assert heard == hear(bob, "message")
    assert isinstance(heard["timestamp"], int)
    assert abs(heard.pop("timestamp") - time.time() * 1_000) < 60_000
    assert heard == {"type": "message", "name": "Bob", "text": "Grüße 👋", "sequence": 1}


def test_seed_4_4_wrong_frames_are_answered_and_not_passed_on(
    page: ServerProcess, room: str
) -> None:
    with enter(page, room, "Ada") as ada, enter(page, room, "Bob") as bob:
        wrong: list[object] = ["{", b"\x00", "null", {"type": "message"}, {"text": "x"}]
        wrong += [{"type": "message", "text": text} for text in (1, "", "x" * 4_097, ["x"])]
        for message in wrong:
            ada.send(message)
            assert hear(ada, "error")["message"]
        ada.send({"type": "message", "text": "right"})
        assert bob.receive()["type"] == "join"
        assert bob.receive()["text"] == "right"


def test_seed_4_5_a_connection_that_breaks_leaves_once(page: ServerProcess, room: str) -> None:
    with enter(page, room, "Ada") as ada:
        bob = enter(page, room, "Bob")
        assert hear(bob, "join")["count"] == 2
        bob.drop()
        assert hear(ada, "leave") == {"type": "leave", "name": "Bob", "count": 1}
        ada.send({"type": "message", "text": "alone"})
        assert ada.receive()["text"] == "alone"  # and no second leave before it


def test_seed_4_5_a_frame_that_breaks_the_protocol_ends_the_session(
    page: ServerProcess, room: str
) -> None:
    with enter(page, room, "Ada") as ada:
        bob = enter(page, room, "Bob")
        hear(bob, "join")
        bob.send_raw(b"\xff\xff\xff\xff")
        assert hear(ada, "leave") == {"type": "leave", "name": "Bob", "count": 1}
        bob.drop()


def test_seed_4_6_rooms_are_objects_of_their_own(page: ServerProcess, room: str) -> None:
    with enter(page, room, "Ada") as ada, enter(page, f"{room}-other", "Bob") as bob:
        assert ada.receive()["count"] == bob.receive()["count"] == 1
        bob.send({"type": "message", "text": "elsewhere"})
        hear(bob, "message")
        ada.send({"type": "message", "text": "here"})
        assert ada.receive()["text"] == "here"


@pytest.mark.parametrize("path", ["/", "/room", "/room/", "/room/a/b", "/websocket", "/rooms/a"])
def test_seed_4_6_everything_else_is_404(page: ServerProcess, path: str) -> None:
    reply = public(page, "GET", path)
    assert (reply.status, reply.body) == (404, b"Not Found")
    assert refusal(page, path).status == 404


def test_seed_4_6_pages_of_other_origins_are_kept_out(page: ServerProcess, room: str) -> None:
    elsewhere = {"Origin": "https://elsewhere.example"}
    assert refusal(page, f"/room/{room}", elsewhere).status == 403


# --- what the page's own code loses --------------------------------------------------------------


def test_seed_4_4_who_was_away_hears_what_was_said(tmp_path: Path) -> None:
    """Over a crash of the server: what anybody heard is stored."""
    with running(APP, tmp_path) as server:
        with enter(server, "lobby", "Ada") as ada:
            for number in range(3):
                ada.send({"type": "message", "text": str(number)})
                assert hear(ada, "message")["sequence"] == number + 1
            server.kill()
        server.restart()
        with enter(server, "lobby", "Ada", after=1) as ada:
            assert [ada.receive()["text"], ada.receive()["text"]] == ["1", "2"]
            assert ada.receive()["type"] == "join"


def test_seed_4_3_a_room_hibernates_and_forgets_nobody(tmp_path: Path) -> None:
    with (
        running(APP, tmp_path, idle_seconds=1) as server,
        enter(server, "lobby", "Ada") as ada,
    ):
        with enter(server, "lobby", "Bob") as bob:
            bob.send({"type": "message", "text": "before"})
            hear(ada, "message")
            wait_until_hibernated(server, "chat-room", "lobby")
            bob.send({"type": "message", "text": "after"})
            assert hear(ada, "message")["name"] == "Bob"
        assert hear(ada, "leave") == {"type": "leave", "name": "Bob", "count": 1}


def test_seed_4_4_the_chat_program_runs(page: ServerProcess, room: str) -> None:
    url = page.url.replace("http", "ws", 1).rstrip("/")
    arguments = ("chat_room.client", room, "--name", "Ada", "--url", url)
    printed = run_program(*arguments, text="Hello\nHow are you?\n")
    assert printed.splitlines() == ["* Ada joined, 1 here", "Ada: Hello", "Ada: How are you?"]
