"""The rows 3.1 to 3.5, 3.12 to 3.20 and 3.29 to 3.33 of the checklist: examples/object_patterns
over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dosql import Request, Response
from dosql.errors import ConflictError, NotFoundError
from dosql.patterns import BaseDurableObject
from dosql.testing import SimpleState
from examples.object_patterns import test_my_object
from examples.object_patterns.app import app as patterns_app
from examples.object_patterns.notebook import DAY_MS
from tests.support.examples import (
    Socket,
    object_info,
    public,
    refusal,
    run_program,
    running,
    wait_until_hibernated,
)
from tests.support.server import ServerProcess

APP = "object_patterns.app:app"
_names = itertools.count(1)


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(APP, tmp_path_factory.mktemp("patterns")) as server:
        yield server


@pytest.fixture
def name() -> str:
    """An object that no other test uses."""
    return f"name-{next(_names)}"


@pytest.fixture
def notebook(patterns: ServerProcess, name: str) -> Iterator[Any]:
    """The stub of a notebook of the test's own."""
    with patterns.client() as client:
        yield client.namespace("notebook").get_by_name(name)


# --- the base class ----------------------------------------------------------------------------


class Shelf(BaseDurableObject):
    """Uses everything that the base class offers."""

    loaded = 0

    async def on_initialize(self) -> None:
        self.loaded += 1

    async def handle_request(self, request: Request) -> Response:
        match request.path:
            case "/storage":
                await self.put("a", 1)
                await self.put({"b": 2, "c": 3})
                got = [await self.get("a"), await self.get(["b", "c", "nothing"])]
                listed = await self.list(prefix="c")
                gone = [await self.delete("a"), await self.delete(["b", "nothing"])]
                return self.json({"got": got, "listed": listed, "gone": gone})
            case "/block":

                async def body() -> int:
                    return 7

                return self.json({"inside": await self.block_concurrency_while(body)})
            case "/success":
                return self.success({"joined": True})
            case "/fail":
                raise ZeroDivisionError("a secret of the implementation")
            case "/refuse":
                raise ConflictError("Not now.")
        return await super().handle_request(request)


async def shelf(path: str) -> tuple[int, Any]:
    response = await Shelf(SimpleState(), {}).fetch(Request(f"http://test{path}"))
    return response.status, await response.json()


async def test_seed_3_1_storage_helpers() -> None:
    status, body = await shelf("/storage")
    assert status == 200
    assert body == {
        "got": [1, {"b": 2, "c": 3}],
        "listed": {"c": 3},
        "gone": [True, 1],
    }


async def test_seed_3_1_replies_and_concurrency() -> None:
    assert await shelf("/success") == (200, {"success": True, "joined": True})
    assert await shelf("/block") == (200, {"inside": 7})
    assert await shelf("/other") == (404, {"error": "Not found", "code": "not_found"})


async def test_seed_3_1_on_initialize_runs_once_and_before_everything_else() -> None:
    state = SimpleState()
    obj = Shelf(state, {})
    for _ in range(3):
        await obj.fetch(Request("http://test/success"))
        await obj.initialize()
    assert obj.loaded == 1
    assert obj.state is state


async def test_seed_3_18_what_was_not_foreseen_is_a_500_that_tells_nothing() -> None:
    assert await shelf("/fail") == (500, {"error": "Internal error", "code": "internal_error"})
    with pytest.raises(ConflictError):  # what was raised on purpose keeps its status
        await shelf("/refuse")


def test_seed_3_18_over_http_too(patterns: ServerProcess, name: str) -> None:
    """Here the router's own code fails on nothing, so the object is asked for what it refuses."""
    reply = public(patterns, "POST", f"/accounts/{name}/debit", json={"amount": -1})
    assert reply.status == 400
    assert "Traceback" not in reply.body.decode()


def test_seed_3_1_helpers_cannot_be_called_from_outside(patterns: ServerProcess, name: str) -> None:
    for method in ("put", "get", "json", "initialize", "on_initialize", "handle_request", "now_ms"):
        reply = patterns.request("POST", f"/rpc/notebook/{name}/{method}", json={})
        assert (reply.status, reply.code) == (404, "method_not_found"), method


def test_seed_3_2_my_durable_object(tmp_path: Path) -> None:
    with running(APP, tmp_path) as server:
        assert public(server, "GET", "/value").json() == {"counter": 0}
        assert public(server, "GET", "/increment").json() == {"counter": 1}
        assert public(server, "POST", "/increment").json() == {"counter": 2}
        assert public(server, "GET", "/value").json() == {"counter": 2}
        server.kill()
        server.restart()
        assert public(server, "POST", "/increment").json() == {"counter": 3}
        reply = server.request("GET", "/objects/my-durable-object/singleton/other")
        assert (reply.status, reply.json()["error"]) == (404, "Not found")


def test_seed_3_3_everybody_shares_the_singleton(patterns: ServerProcess) -> None:
    public(patterns, "POST", "/increment")
    listed = patterns.request("GET", "/admin/objects/my-durable-object").json()["objects"]
    assert [info["name"] for info in listed] == ["singleton"]


# --- rooms -------------------------------------------------------------------------------------


def enter(server: ServerProcess, room: str, user: str, **query: object) -> Socket:
    more = "".join(f"&{key}={value}" for key, value in query.items())
    return Socket(server, f"/room?userId={user}&room={room}{more}")


def test_seed_3_4_everybody_hears_what_anybody_says(patterns: ServerProcess, name: str) -> None:
    with enter(patterns, name, "ada") as ada, enter(patterns, name, "bob") as bob:
        assert ada.receive()["roomState"] == {"users": ["ada"]}
        assert bob.receive()["roomState"] == {"users": ["ada", "bob"]}
        joined = ada.receive()
        assert (joined["type"], joined["userId"]) == ("user_joined", "bob")
        bob.send({"type": "message", "payload": "Hello, room!"})
        heard = ada.receive()
        assert heard == bob.receive()
        assert abs(heard.pop("timestamp") - time.time() * 1_000) < 60_000
        assert heard == {
            "type": "message",
            "userId": "bob",
            "payload": "Hello, room!",
            "sequence": 1,
        }


def test_seed_3_4_a_user_joins_and_leaves_once_however_many_connections(
    patterns: ServerProcess, name: str
) -> None:
    with enter(patterns, name, "ada") as ada:
        ada.receive()
        first, second = enter(patterns, name, "bob"), enter(patterns, name, "bob")
        second.receive()
        first.close()
        second.drop()
        assert ada.receive()["type"] == "user_joined"
        assert ada.receive()["type"] == "user_left"
        with enter(patterns, name, "cleo") as cleo:
            assert cleo.receive()["roomState"] == {"users": ["ada", "cleo"]}
        assert ada.receive()["userId"] == "cleo"


def test_seed_3_4_wrong_frames_are_answered_and_not_passed_on(
    patterns: ServerProcess, name: str
) -> None:
    with enter(patterns, name, "ada") as ada, enter(patterns, name, "bob") as bob:
        wrong = ("{", b"\x00", "[]", "NaN", {"type": "message"}, {"payload": 1}, "x" * 65_537)
        for message in wrong:
            ada.send(message)
            assert ada.receive_type("error")["message"]
        ada.send({"type": "message", "payload": {"deep": [1, None, True]}})
        assert bob.receive()["type"] == "welcome"
        assert bob.receive()["payload"] == {"deep": [1, None, True]}


@pytest.mark.parametrize("query", ["", "?userId=", "?userId=a%00b", f"?userId={'x' * 65}"])
def test_seed_3_4_nobody_enters_without_a_user_id(patterns: ServerProcess, query: str) -> None:
    assert refusal(patterns, f"/room{query}").status == 400


def test_seed_3_4_a_request_that_is_no_upgrade_is_426(patterns: ServerProcess) -> None:
    reply = public(patterns, "GET", "/room?userId=ada")
    assert (reply.status, reply.json()["error"]) == (426, "Expected Upgrade: websocket")
    assert reply.headers["upgrade"] == "websocket"


def test_seed_3_4_who_was_away_hears_what_was_said(tmp_path: Path) -> None:
    """Over a crash of the server: what anybody heard is stored."""
    with running(APP, tmp_path) as server:
        with enter(server, "lobby", "ada") as ada:
            assert ada.receive()["sequence"] == 0
            for number in range(3):
                ada.send({"type": "message", "payload": number})
                assert ada.receive()["sequence"] == number + 1
            server.kill()
        server.restart()
        with enter(server, "lobby", "ada", after=1) as ada:
            assert (ada.receive()["sequence"], ada.receive()["payload"]) == (1, 1)
            assert ada.receive()["payload"] == 2
            ada.send({"type": "message", "payload": 3})
            assert ada.receive()["sequence"] == 4


def test_seed_3_4_3_29_a_room_hibernates_and_its_sockets_stay(tmp_path: Path) -> None:
    with (
        running(APP, tmp_path, idle_seconds=1) as server,
        enter(server, "lobby", "ada") as ada,
        enter(server, "lobby", "bob") as bob,
    ):
        ada.send({"type": "message", "payload": 1})
        assert bob.receive_type("message")["userId"] == "ada"
        wait_until_hibernated(server, "rooms", "lobby")
        bob.send({"type": "message", "payload": 2})
        assert ada.receive_type("message")["payload"] == 1
        assert ada.receive_type("message")["userId"] == "bob"


def test_seed_3_16_a_chat_message_is_broadcast(patterns: ServerProcess, name: str) -> None:
    path = f"/rooms/{name}?userId="
    with Socket(patterns, f"{path}ada") as ada, Socket(patterns, f"{path}bob") as bob:
        ada.send({"type": "chat", "message": "Hello"})
        heard = bob.receive_type("chat")
        assert heard == ada.receive_type("chat")
        assert set(heard) == {"type", "userId", "message", "timestamp", "sequence"}
        assert (heard["userId"], heard["message"]) == ("ada", "Hello")
        for wrong in (1, "", "x" * 4_097):
            ada.send({"type": "chat", "message": wrong})
            assert ada.receive_type("error")["message"]


async def test_seed_3_17_the_chat_client_stays_in_the_room(tmp_path: Path) -> None:
    """It connects, talks, and after a crash of the server comes back and has missed nothing."""
    from examples.object_patterns.chat_client import ChatClient

    class Shown:
        def __init__(self) -> None:
            self.lines: list[str] = []
            self._queue: asyncio.Queue[str] = asyncio.Queue()

        def add(self, line: str) -> None:
            self.lines.append(line)
            self._queue.put_nowait(line)

        async def until(self, line: str) -> None:
            while await self._queue.get() != line:
                pass

    with running(APP, tmp_path) as server:
        for_ada, for_bob = Shown(), Shown()
        url = server.url.replace("http", "ws", 1).rstrip("/")
        ada, bob = ChatClient(url, for_ada.add), ChatClient(url, for_bob.add)
        async with asyncio.timeout(30):
            ada_stays = asyncio.create_task(ada.connect("lobby", "ada"))
            await ada.connected.wait()
            bob_stays = asyncio.create_task(bob.connect("lobby", "bob"))
            await for_ada.until("bob joined the room")
            await bob.send_message("Hello")
            await for_ada.until("bob: Hello")
            bob_stays.cancel()
            await for_ada.until("bob left the room")
            await ada.send_message("Still here")
            await for_ada.until("ada: Still here")
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
            ada.url = bob.url = server.url.replace("http", "ws", 1).rstrip("/")
            bob_stays = asyncio.create_task(bob.connect("lobby", "bob"))
            await for_bob.until("ada: Still here")
            await bob.send_message("Back again")
            await for_ada.until("bob: Back again")
            for stays in (ada_stays, bob_stays):
                stays.cancel()
        assert for_ada.lines[:2] == ["Connected to room", "Joined room: ada"]
        assert for_bob.lines.count("bob: Hello") == 1


def test_seed_3_17_the_chat_program_runs(patterns: ServerProcess, name: str) -> None:
    url = patterns.url.replace("http", "ws", 1).rstrip("/")
    arguments = ("object_patterns.chat_client", name, "ada", "--url", url)
    assert "Joined room: ada" in run_program(*arguments, text="Hello\n")


# --- counters and limits -------------------------------------------------------------------------


def test_seed_3_5_the_counter_service(patterns: ServerProcess, name: str) -> None:
    path = f"/counters/{name}"
    assert public(patterns, "POST", f"{path}/increment").json() == {"value": 1}
    reply = public(patterns, "POST", f"{path}/increment", json={"by": 4})
    assert reply.json() == {"value": 5}
    assert public(patterns, "POST", f"{path}/decrement").json() == {"value": 4}
    assert public(patterns, "GET", f"{path}/value").json() == {"value": 4}
    reply = public(patterns, "GET", f"{path}/increment")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    wrongs: tuple[object, ...] = ({"by": 1.5}, {"by": True}, {"by": "1"}, [], 1)
    for wrong in wrongs:
        assert public(patterns, "POST", f"{path}/increment", json=wrong).status == 400
    assert public(patterns, "GET", f"{path}/nothing").status == 404
    assert public(patterns, "POST", f"{path}/reset").json() == {"value": 0}


def test_seed_3_5_no_increment_is_lost(patterns: ServerProcess, name: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(
            pool.map(lambda _: public(patterns, "POST", f"/counters/{name}/increment"), range(200))
        )
    assert sorted(reply.json()["value"] for reply in replies) == list(range(1, 201))


def test_seed_3_5_a_counter_counts_beyond_64_bits(patterns: ServerProcess, name: str) -> None:
    body = {"by": 2**64}
    reply = public(patterns, "POST", f"/counters/{name}/increment", json=body)
    assert reply.json() == {"value": 2**64}


# --- storage -------------------------------------------------------------------------------------


def test_seed_3_12_one_value_and_several(notebook: Any) -> None:
    notebook.save("key", {"nested": [1, "two", None]})
    assert notebook.load("key") == {"nested": [1, "two", None]}
    assert notebook.load("nothing") is None
    assert [notebook.remove("key"), notebook.remove("key")] == [True, False]
    notebook.save_all({"b": 2, "a": 1, "c": 3})
    assert list(notebook.load_all(["c", "a", "nothing"]).items()) == [("a", 1), ("c", 3)]
    assert notebook.remove_all(["a", "b", "nothing"]) == 2
    assert notebook.entries() == [["c", 3]]


def test_seed_3_13_a_list_with_prefix_limit_reverse_and_end(notebook: Any) -> None:
    notebook.save_all({f"user:{number}": number for number in range(5)} | {"other": 0, "z": 9})
    assert [key for key, _ in notebook.entries(prefix="user:")] == [f"user:{n}" for n in range(5)]
    newest = notebook.entries(prefix="user:", limit=2, reverse=True)
    assert newest == [["user:4", 4], ["user:3", 3]]
    assert notebook.entries(prefix="user:", end="user:2") == [["user:0", 0], ["user:1", 1]]


def test_seed_3_14_a_transaction_is_kept_whole_or_not_at_all(
    patterns: ServerProcess, name: str
) -> None:
    path = f"/accounts/{name}"

    def debit(amount: object) -> Any:
        return public(patterns, "POST", f"{path}/debit", json={"amount": amount})

    assert public(patterns, "POST", f"{path}/deposit", json={"amount": 100}).json() == {
        "success": True,
        "balance": 100,
    }
    assert debit(30).json()["balance"] == 70
    assert debit(30).json()["balance"] == 40
    reply = debit(50)
    assert (reply.status, reply.code) == (409, "insufficient_funds")
    assert reply.json()["error"] == "Insufficient funds"
    statement = public(patterns, "GET", f"{path}/").json()
    assert statement["balance"] == 40
    assert list(statement["transactions"].values()) == [{"amount": 30, "type": "debit"}] * 2
    assert all(key.startswith("transaction:") for key in statement["transactions"])
    for wrong in (0, -5, 1.5, "1", None, True):
        assert debit(wrong).status == 400


def test_seed_3_14_simultaneous_debits_never_overdraw(patterns: ServerProcess, name: str) -> None:
    path = f"/accounts/{name}"
    public(patterns, "POST", f"{path}/deposit", json={"amount": 50})
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(
                lambda _: public(patterns, "POST", f"{path}/debit", json={"amount": 1}).status,
                range(80),
            )
        )
    assert (statuses.count(200), statuses.count(409)) == (50, 30)
    statement = public(patterns, "GET", f"{path}/").json()
    assert (statement["balance"], len(statement["transactions"])) == (0, 50)


def test_seed_3_15_read_modify_write_under_block_concurrency_while(
    patterns: ServerProcess, name: str
) -> None:
    def increment(_: int) -> int:
        reply = patterns.request("POST", f"/rpc/notebook/{name}/increment", json={"args": ["n"]})
        result: int = reply.json()["result"]
        return result

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(increment, range(50))) == list(range(1, 51))


def test_seed_3_19_many_at_once_and_what_is_old_goes(notebook: Any) -> None:
    notebook.save_all({f"user:{number}": {"n": number} for number in range(300)})
    assert len(notebook.entries(prefix="user:")) == 300
    long_ago = int(time.time() * 1_000) - DAY_MS - 60_000
    notebook.save_all({f"temp:{long_ago + number}": number for number in range(200)})
    kept = notebook.save_for_a_day("fresh")
    assert notebook.clean_up() == 200
    assert notebook.entries(prefix="temp:") == [[kept, "fresh"]]
    assert len(notebook.entries(prefix="user:")) == 300


def test_seed_3_31_a_put_that_nobody_awaits_is_kept(tmp_path: Path) -> None:
    """The guide calls it wrong. Here as there it is stored before anybody is answered."""
    with running(APP, tmp_path) as server:
        body = {"args": ["key", "kept"]}
        reply = server.request("POST", "/rpc/notebook/n/save_without_await", json=body)
        assert reply.status == 200
        server.kill()
        server.restart()
        reply = server.request("POST", "/rpc/notebook/n/load", json={"args": ["key"]})
        assert reply.json() == {"result": "kept"}
        assert "RuntimeWarning" not in server.log_text


# --- testing, life, configuration ----------------------------------------------------------------


async def test_seed_3_20_an_object_is_tested_without_a_server() -> None:
    """The test that the example shows."""
    await test_my_object.test_it_counts()
    await test_my_object.test_it_knows_nothing_else()


def test_seed_3_29_objects_come_into_being_at_their_first_use(
    patterns: ServerProcess, name: str
) -> None:
    assert object_info(patterns, "counters", name) is None
    assert public(patterns, "GET", f"/counters/{name}/value").json() == {"value": 0}
    public(patterns, "POST", f"/counters/{name}/increment")
    assert object_info(patterns, "counters", name)["state"] == "awake"


def test_seed_3_29_an_idle_object_hibernates_and_wakes(tmp_path: Path) -> None:
    with running(APP, tmp_path, idle_seconds=1) as server:
        assert public(server, "POST", "/increment").json() == {"counter": 1}
        wait_until_hibernated(server, "my-durable-object", "singleton")
        assert public(server, "POST", "/increment").json() == {"counter": 2}


def test_seed_3_30_classes_and_their_bindings() -> None:
    bindings = {entry.binding: entry.cls.__name__ for entry in patterns_app.registrations.values()}
    assert bindings == {
        "MY_DURABLE_OBJECT": "MyDurableObject",
        "ROOMS": "WebSocketRoom",
        "CHAT_ROOM": "ChatRoom",
        "COUNTERS": "Counter",
        "RATE_LIMITER": "RateLimiter",
        "GAME_SERVERS": "GameServer",
        "ACCOUNT": "Account",
        "NOTEBOOK": "Notebook",
    }


def test_seed_3_30_the_game_behind_its_binding(patterns: ServerProcess, name: str) -> None:
    path = f"/game/{name}"
    assert public(patterns, "GET", f"{path}/state").json() == {"status": "waiting"}
    for number in (1, 2, 3, 4):
        reply = public(patterns, "POST", f"{path}/join?playerId=p{number}")
        assert reply.json() == {"success": True, "joined": True, "players": number}
    reply = public(patterns, "POST", f"{path}/join?playerId=p5")
    assert (reply.status, reply.json()["error"]) == (400, "Game is full")
    assert public(patterns, "POST", f"{path}/join?playerId=p1").json()["players"] == 4
    assert public(patterns, "POST", f"{path}/move?playerId=p1", json={"to": "e4"}).status == 200
    assert public(patterns, "GET", f"{path}/state").json()["status"] == "playing"
    assert public(patterns, "POST", f"{path}/move?playerId=p5", json={}).status == 409
    assert public(patterns, "GET", "/nothing").status == 404


def test_seed_3_32_the_patterns_are_importable_from_one_package() -> None:
    from dosql import patterns
    from dosql.patterns.base import BaseDurableObject as Base
    from dosql.patterns.counter import Counter
    from dosql.patterns.rate_limiter import RateLimiter
    from dosql.patterns.websocket_room import WebSocketRoom

    assert patterns.BaseDurableObject is Base
    assert patterns.Counter is Counter
    assert patterns.RateLimiter is RateLimiter
    assert patterns.WebSocketRoom is WebSocketRoom


def test_seed_3_33_the_practices_in_one_object(notebook: Any) -> None:
    """Stored at once, written in batches, cleaned up by an alarm that ends when there is nothing
    left to clean."""
    notebook.save_all({"a": 1, "b": 2})
    key = notebook.save_for_a_day("x")
    assert notebook.load(key) == "x"
    with pytest.raises(NotFoundError):
        notebook.alarm()
