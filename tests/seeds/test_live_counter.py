"""The rows 1.1 to 1.17 and 1.26 of the checklist: examples/live_counter over real sockets."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dosql.testing import harness
from examples.live_counter.app import app as live_app
from examples.live_counter.events import HISTORY_MAX, PING, VALUE_MAX
from tests.support.examples import (
    Socket,
    object_info,
    public,
    refusal,
    run_program,
    running,
    wait_until_hibernated,
)
from tests.support.server import Reply, ServerProcess

APP = "live_counter.app:app"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_names = itertools.count(1)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """An object that nothing happens to hibernates after a second."""
    with running(APP, tmp_path_factory.mktemp("live"), idle_seconds=1) as server:
        yield server


@pytest.fixture
def name() -> str:
    """A counter that no other test uses."""
    return f"counter-{next(_names)}"


def post(
    server: ServerProcess, procedure: str, body: object, headers: dict[str, str] | None = None
) -> Reply:
    return public(server, "POST", f"/rpc/counter.{procedure}", json=body, headers=headers)


def call(server: ServerProcess, procedure: str, name: str, **given: object) -> Any:
    reply = post(server, procedure, {"name": name, **given})
    assert reply.status == 200, reply.body
    return reply.json()


def watch(server: ServerProcess, name: str, after: int | None = None) -> Socket:
    query = "" if after is None else f"?after={after}"
    return Socket(server, f"/ws/counter/{name}{query}")


# --- sessions --------------------------------------------------------------------------------


def test_seed_1_1_1_16_sessions_are_restored_after_hibernation(
    live: ServerProcess, name: str
) -> None:
    call(live, "increment", name)
    with watch(live, name) as first, watch(live, name) as second:
        wait_until_hibernated(live, "counter", name)
        assert object_info(live, "counter", name)["sockets"] == 2
        call(live, "increment", name)
        assert first.receive()["value"] == second.receive()["value"] == 2


def test_seed_1_2_1_17_a_ping_is_answered_without_waking_the_object(
    live: ServerProcess, name: str
) -> None:
    call(live, "increment", name)
    with watch(live, name) as ws:
        wait_until_hibernated(live, "counter", name)
        pongs = []
        for _ in range(3):
            ws.send(PING)
            pongs.append(ws.receive())
        assert object_info(live, "counter", name)["state"] == "hibernated"
    for pong in pongs:
        assert set(pong) == {"type", "timestamp"}
        assert pong["type"] == "pong"
        assert MOMENT.fullmatch(pong["timestamp"])


def test_seed_1_3_1_12_the_route_leads_to_the_counter_of_that_name(
    live: ServerProcess, name: str
) -> None:
    with watch(live, name) as ws, watch(live, f"{name}-other") as other:
        call(live, "increment", name)
        assert ws.receive()["metadata"]["name"] == name
        other.send(PING)
        assert other.receive()["type"] == "pong"  # and nothing before it


def test_seed_1_12_the_request_must_be_an_upgrade(live: ServerProcess, name: str) -> None:
    reply = public(live, "GET", f"/ws/counter/{name}")
    assert (reply.status, reply.body) == (426, b"Expected Upgrade: websocket")


@pytest.mark.parametrize("wrong", ["", "Upper", "a" * 64, "%2e%2e", "a%2Fb", "a/b", "-a"])
def test_seed_1_12_not_every_text_is_a_counter(live: ServerProcess, wrong: str) -> None:
    assert refusal(live, f"/ws/counter/{wrong}").status == 400


def test_seed_1_12_who_only_watches_creates_nothing(live: ServerProcess, name: str) -> None:
    with watch(live, name) as ws:
        assert call(live, "getValue", name) == {"value": 0}
        assert post(live, "getMetadata", {"name": name}).status == 404
        ws.send(PING)
        ws.receive()
    assert object_info(live, "counter", name) is None


def test_seed_1_12_pages_of_other_origins_are_kept_out(live: ServerProcess, name: str) -> None:
    elsewhere = {"Origin": "https://elsewhere.example"}
    assert refusal(live, f"/ws/counter/{name}", elsewhere).status == 403


def test_seed_1_4_pings_in_any_spelling_and_unknown_messages(
    live: ServerProcess, name: str
) -> None:
    with watch(live, name) as ws:
        ws.send('{ "type": "ping" }')
        assert MOMENT.fullmatch(ws.receive()["timestamp"])
        for unknown in ({"type": "later"}, "{", "[1]", b"\xff", "null"):
            ws.send(unknown)
            error = ws.receive()
            assert error["type"] == "error"
            assert error["message"]


def test_seed_1_5_a_closed_session_is_cleaned_up(live: ServerProcess, name: str) -> None:
    call(live, "increment", name)

    def sockets() -> int:
        count: int = object_info(live, "counter", name)["sockets"]
        return count

    with watch(live, name) as stays:
        goes = watch(live, name)
        live.wait_for(lambda: sockets() == 2, "both sessions")
        goes.close()
        live.wait_for(lambda: sockets() == 1, "the closed one to go")
        vanishes = watch(live, name)
        live.wait_for(lambda: sockets() == 2, "another session")
        vanishes.drop()
        live.wait_for(lambda: sockets() == 1, "the vanished one to go")
        call(live, "increment", name)
        assert stays.receive()["value"] == 2


# --- operations ------------------------------------------------------------------------------


def test_seed_1_6_to_1_10_every_operation_is_told_to_everybody_once(
    live: ServerProcess, name: str
) -> None:
    with watch(live, name) as first, watch(live, name) as second:
        answers = [
            call(live, "increment", name, amount=5),
            call(live, "decrement", name, amount=2),
            call(live, "setValue", name, value=40),
            call(live, "increment", name),
            call(live, "reset", name),
        ]
        heard = [first.receive() for _ in answers]
        assert heard == [second.receive() for _ in answers]
        assert heard == answers
    steps = [(event["type"], event["previousValue"], event["value"]) for event in heard]
    assert steps == [
        ("increment", 0, 5),
        ("decrement", 5, 3),
        ("setValue", 3, 40),
        ("increment", 40, 41),
        ("reset", 41, 0),
    ]


def test_seed_1_11_value_metadata_and_history_can_be_asked(live: ServerProcess, name: str) -> None:
    for amount in (1, 2, 3):
        call(live, "increment", name, amount=amount)
    assert call(live, "getValue", name) == {"value": 6}
    assert call(live, "getMetadata", name)["operationCount"] == 3
    history = call(live, "getHistory", name)["operations"]
    assert [entry["value"] for entry in history] == [6, 3, 1]
    assert set(history[0]) == {"sequence", "type", "value", "previousValue", "timestamp"}
    page = call(live, "getHistory", name, limit=1, before=history[0]["sequence"])
    assert page["operations"] == [history[1]]


async def test_seed_1_11_the_history_is_bounded() -> None:
    """A thousand operations are quicker without a network."""
    async with harness(live_app) as h:
        counter = h.env.COUNTER.get_by_name("a")
        for _ in range(HISTORY_MAX + 3):
            await counter.increment()
        history = await counter.get_history(limit=2 * HISTORY_MAX)
        assert len(history) == HISTORY_MAX
        assert history[0]["sequence"] == HISTORY_MAX + 3
        ws = await h.connect(counter, "/?after=1")
        snapshot = json.loads(await ws.receive())
        assert snapshot["type"] == "snapshot"
        assert snapshot["metadata"]["operationCount"] == HISTORY_MAX + 3


def test_seed_1_13_1_14_1_15_the_shape_of_an_event(live: ServerProcess, name: str) -> None:
    first = call(live, "increment", name)
    with watch(live, name) as ws:
        call(live, "increment", name)
        event = ws.receive()
    assert set(event) == {"type", "value", "previousValue", "metadata", "timestamp"}
    metadata = event["metadata"]
    assert list(metadata) == ["id", "name", "value", "createdAt", "updatedAt", "operationCount"]
    assert (metadata["id"], metadata["name"], metadata["value"]) == (1, name, 2)
    assert metadata["operationCount"] == 2
    assert metadata["createdAt"] == first["metadata"]["createdAt"]
    assert metadata["updatedAt"] == event["timestamp"]
    for moment in (event["timestamp"], metadata["createdAt"], metadata["updatedAt"]):
        assert MOMENT.fullmatch(moment)


def test_seed_1_26_the_caller_is_answered_with_the_event_the_others_hear(
    live: ServerProcess, name: str
) -> None:
    with watch(live, name) as ws:
        reply = post(live, "increment", {"name": name, "amount": 1})
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.json() == ws.receive()


def test_seed_1_26_a_repeated_call_with_its_key_counts_once(live: ServerProcess, name: str) -> None:
    key = {"Idempotency-Key": "once"}
    with watch(live, name) as ws:
        first = post(live, "increment", {"name": name}, key).json()
        call(live, "increment", name)
        again = post(live, "increment", {"name": name}, key).json()
        assert again == first
        assert call(live, "getValue", name) == {"value": 2}
        assert [ws.receive()["value"] for _ in range(2)] == [1, 2]
        ws.send(PING)
        assert ws.receive()["type"] == "pong"


@pytest.mark.parametrize(
    ("procedure", "body"),
    [
        ("increment", {}),
        ("increment", {"name": 1}),
        ("increment", {"name": "UPPER"}),
        ("increment", {"name": "a", "amount": "1"}),
        ("increment", {"name": "a", "amount": 1.5}),
        ("increment", {"name": "a", "amount": VALUE_MAX + 1}),
        ("setValue", {"name": "a"}),
        ("setValue", {"name": "a", "value": -VALUE_MAX - 1}),
        ("increment", []),
    ],
)
def test_seed_1_26_wrong_calls_are_refused(
    live: ServerProcess, procedure: str, body: object
) -> None:
    reply = post(live, procedure, body)
    assert reply.status == 400, reply.body
    assert set(reply.json()) >= {"error", "code", "requestId"}
    assert call(live, "getValue", "a") == {"value": 0}


def test_seed_1_26_unknown_procedures_and_methods(live: ServerProcess) -> None:
    assert post(live, "explode", {"name": "a"}).status == 404
    assert public(live, "GET", "/rpc/counter.increment").status == 405


def test_seed_1_6_rapid_operations_of_many_reach_everybody_in_order(
    live: ServerProcess, name: str
) -> None:
    count = 200
    sockets = [watch(live, name) for _ in range(5)]
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: call(live, "increment", name), range(count)))
        assert sorted(event["value"] for event in answers) == list(range(1, count + 1))
        for ws in sockets:
            heard = [ws.receive() for _ in range(count)]
            assert [event["metadata"]["operationCount"] for event in heard] == list(
                range(1, count + 1)
            )
    finally:
        for ws in sockets:
            ws.close()


# --- connections that are lost ---------------------------------------------------------------


def test_seed_1_6_who_comes_back_is_told_what_happened_meanwhile(
    live: ServerProcess, name: str
) -> None:
    with watch(live, name) as ws:
        missed = [call(live, "increment", name)]
        assert ws.receive() == missed[0]
    missed += [call(live, "decrement", name, amount=3), call(live, "reset", name)]
    with watch(live, name, after=1) as ws:
        assert [ws.receive(), ws.receive()] == missed[1:]
        now = call(live, "increment", name)
        assert ws.receive() == now


def test_seed_1_1_no_answered_operation_is_lost_in_a_crash(tmp_path: Path) -> None:
    with running(APP, tmp_path) as server:
        ws = watch(server, "survivor")
        answered = [call(server, "increment", "survivor") for _ in range(5)]
        assert [ws.receive() for _ in answered] == answered
        server.kill()
        assert ws.closed()[0] in {None, 1006}
        server.restart()
        with watch(server, "survivor", after=2) as again:
            assert [again.receive() for _ in range(3)] == answered[2:]


def test_seed_1_6_the_client_program_prints_what_happened(live: ServerProcess, name: str) -> None:
    call(live, "increment", name, amount=2)
    call(live, "decrement", name)
    url = live.url.replace("http", "ws", 1).rstrip("/")
    printed = run_program("live_counter.client", name, "--url", url, "--updates", "2")
    assert printed.splitlines() == ["Counter increment: 0 → 2", "Counter decrement: 2 → 1"]
