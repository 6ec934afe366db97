"""The rows 0.* of the checklist: examples/counter_guide over real sockets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_type_hints

import pytest

from dosql import Request
from dosql.testing import harness
from examples.counter_guide.api import api
from examples.counter_guide.app import app as guide_app
from examples.counter_guide.env import Bindings, Context
from server.settings import Settings
from tests.support.examples import (
    ROOT,
    Socket,
    handshake,
    public,
    refusal,
    run_program,
    running,
    wait_until_hibernated,
)
from tests.support.server import ADMIN_TOKEN, ServerProcess

WS = "/api/counter/ws"
INCREMENT = {"type": "increment"}


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Counts go up from one test to the next: tests compare with what they found."""
    with running("counter_guide.app:app", tmp_path_factory.mktemp("guide")) as server:
        yield server


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running("counter_guide.simple:app", tmp_path_factory.mktemp("simple")) as server:
        yield server


@pytest.fixture(params=["guide", "simple"])
def either(request: pytest.FixtureRequest) -> ServerProcess:
    """The structured program, and the simple one: their counters behave alike."""
    server: ServerProcess = request.getfixturevalue(request.param)
    return server


# --- bindings, variables, entry point ------------------------------------------------------------


def test_seed_0_1_the_env_has_a_typed_namespace_for_each_class() -> None:
    names = {name: str(kind) for name, kind in get_type_hints(Bindings).items()}
    assert set(names) == {"COUNTER", "COUNTER2"}
    assert "Counter]" in names["COUNTER"]
    assert "Counter2]" in names["COUNTER2"]


async def test_seed_0_2_0_15_0_16_middleware_sets_the_variables_of_a_request() -> None:
    async with harness(guide_app) as h:
        context = Context(Request("/api/counter2/value", headers={"X-Request-ID": "abc"}), h.env)
        assert (await api(context)).status == 200
        assert context.request_id == "abc"
        assert context.counter_stub is None
        assert context.counter2_stub is not None
        assert context.counter2_stub.id == h.env.COUNTER2.id_from_name("default")

        context = Context(Request("/api/counter/ws", headers={"X-Request-ID": "abc"}), h.env)
        assert (await api(context)).status == 426
        assert context.counter_stub is not None
        assert context.counter_stub.id == h.env.COUNTER.id_from_name("default")


def test_seed_0_3_a_program_without_variables_works_too(simple: ServerProcess) -> None:
    with Socket(simple, WS) as ws:
        assert ws.receive()["type"] == "update"
    assert public(simple, "GET", "/api/counter2/value").status == 404


def test_seed_0_14_every_request_has_an_id_of_its_own(guide: ServerProcess) -> None:
    """A random UUID, in the reply and in the log."""
    replies = [public(guide, "GET", "/api/counter2/value") for _ in range(3)]
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == 3
    assert all(uuid.UUID(each).version == 4 for each in ids)
    guide.wait_for(lambda: ids[-1] in guide.log_text, "the request in the log")


def test_seed_0_20_0_22_the_entry_point_registers_both_classes_and_a_fetch() -> None:
    registered = {
        entry.binding: (entry.namespace, entry.cls.__name__)
        for entry in guide_app.registrations.values()
    }
    assert registered == {
        "COUNTER": ("counter", "Counter"),
        "COUNTER2": ("counter2", "Counter2"),
    }
    assert guide_app.fetch_handler is not None


PROGRAM = """
from dosql import App, DurableObject, Env, Namespace

class Counter(DurableObject):
    pass

class Bindings(Env):
    COUNTER: Namespace[Counter]

app = App(env=Bindings)
{registration}
"""


def serve(folder: Path, registration: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(PROGRAM.format(registration=registration))
    return subprocess.run(
        [
            *(Path(sys.executable).with_name("dosql"), "serve", "--app", "program:app"),
            *("--listen", "127.0.0.1:0", "--data-dir", str(folder / "data")),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_seed_0_21_0_23_a_class_that_is_not_registered_stops_the_start(tmp_path: Path) -> None:
    """The seed's "Script does not export a Counter entrypoint", with what to write instead."""
    done = serve(tmp_path, registration="")
    assert done.returncode == 2
    assert "@app.durable_object" in done.stderr
    assert "class Counter" in done.stderr
    assert "Traceback" not in done.stderr


# --- the counter over WebSockets -----------------------------------------------------------------


def test_seed_0_4_0_8_a_new_counter_is_zero_and_says_so_on_connect(
    tmp_path: Path,
) -> None:
    with running("counter_guide.app:app", tmp_path) as server, Socket(server, WS) as ws:
        assert ws.receive() == {"type": "update", "value": 0}


def test_seed_0_5_the_object_knows_only_its_own_path(either: ServerProcess) -> None:
    reply = either.request("GET", "/objects/counter/default/other")
    assert (reply.status, reply.body) == (404, b"Not found")


@pytest.mark.parametrize("headers", [{}, {"Upgrade": "h2c"}])
def test_seed_0_6_a_request_that_is_no_upgrade_is_426(
    either: ServerProcess, headers: dict[str, str]
) -> None:
    reply = public(either, "GET", WS, headers=headers)
    assert (reply.status, reply.body) == (426, b"Expected Upgrade: websocket")
    assert reply.headers["upgrade"] == "websocket"


def test_seed_0_6_the_case_of_the_upgrade_header_does_not_matter(either: ServerProcess) -> None:
    assert handshake(either, WS, upgrade="WebSocket") == "HTTP/1.1 101 Switching Protocols"


def test_seed_0_7_0_9_a_message_counts_stores_and_tells(either: ServerProcess) -> None:
    with Socket(either, WS) as ws:
        value = ws.receive()["value"]
        ws.send(INCREMENT)
        assert ws.receive() == {"type": "update", "value": value + 1}
    with Socket(either, WS) as ws:
        assert ws.receive() == {"type": "update", "value": value + 1}


def test_seed_0_9_what_is_no_increment_is_answered_with_an_error(either: ServerProcess) -> None:
    with Socket(either, WS) as ws:
        value = ws.receive()["value"]
        for wrong in ("{", "[]", b"\x00", {"type": "decrement"}, "[" * 1_000):
            ws.send(wrong)
            assert ws.receive()["type"] == "error"
        ws.send(INCREMENT)
        assert ws.receive() == {"type": "update", "value": value + 1}


def test_seed_0_10_0_26_everybody_hears_of_every_change_in_one_order(
    either: ServerProcess,
) -> None:
    sockets = [Socket(either, WS) for _ in range(20)]
    try:
        found = {ws.receive()["value"] for ws in sockets}
        assert len(found) == 1
        start = found.pop()
        for ws in sockets:
            ws.send(INCREMENT)
        for ws in sockets:
            values = [ws.receive()["value"] for _ in sockets]
            assert values == list(range(start + 1, start + 21))
    finally:
        for ws in sockets:
            ws.close()


def test_seed_0_10_a_dead_session_does_not_keep_the_others_from_hearing(
    either: ServerProcess,
) -> None:
    with Socket(either, WS) as ws:
        value = ws.receive()["value"]
        dead = Socket(either, WS)
        dead.receive()
        dead.drop()
        ws.send(INCREMENT)
        assert ws.receive() == {"type": "update", "value": value + 1}


def test_seed_0_11_a_closed_session_is_forgotten(guide: ServerProcess) -> None:
    def sockets() -> int:
        listed = guide.request("GET", "/admin/objects/counter").json()["objects"]
        return sum(info["sockets"] for info in listed)

    # Sessions of earlier tests close in their own time.
    guide.wait_for(lambda: sockets() == 0, "no session")
    with Socket(guide, WS) as ws:
        ws.receive()
        assert sockets() == 1
    guide.wait_for(lambda: sockets() == 0, "the session to be forgotten")


def test_seed_0_17_the_route_leads_to_the_objects_own_path(either: ServerProcess) -> None:
    """The seed forwards the path as it is, and its object answers 404 for ever."""
    with Socket(either, WS) as ws:
        assert ws.receive()["type"] == "update"
    assert public(either, "GET", "/api/counter/other").status == 404


def test_seed_0_17_a_page_of_another_origin_is_kept_out(guide: ServerProcess) -> None:
    refused = refusal(guide, WS, {"Origin": "https://elsewhere.example"})
    assert (refused.status, refused.text) == (403, "Origin not allowed")
    host = guide.url.removeprefix("http://").rstrip("/")
    with Socket(guide, WS, {"Origin": f"http://{host}"}) as ws:
        assert ws.receive()["type"] == "update"


def test_seed_0_24_the_client_of_the_guide_runs(guide: ServerProcess) -> None:
    url = guide.url.replace("http", "ws", 1).rstrip("/") + WS
    arguments = ("--url", url, "--increments", "2", "--updates", "3")
    lines = run_program("counter_guide.client", *arguments).splitlines()
    values = [json.loads(line.replace("'", '"'))["value"] for line in lines]
    assert values == [values[0], values[0] + 1, values[0] + 2]


# --- the counter by RPC --------------------------------------------------------------------------


def test_seed_0_12_0_13_methods_are_called_on_the_stub(guide: ServerProcess) -> None:
    """Here by the client; the routes below do it inside the server."""
    with guide.client() as client:
        counter = client.namespace("counter2").get_by_name("by-client")
        assert counter.get_value() == 0
        assert [counter.increment(), counter.increment()] == [1, 2]
        assert counter.get_value() == 2


def test_seed_0_18_0_19_increment_and_value_over_http(guide: ServerProcess) -> None:
    before = public(guide, "GET", "/api/counter2/value").json()["value"]
    assert public(guide, "GET", "/api/counter2/increment").json() == {"value": before + 1}
    reply = public(guide, "POST", "/api/counter2/increment")
    assert (reply.status, reply.json()) == (200, {"value": before + 2})
    assert reply.headers["cache-control"] == "no-store"
    assert public(guide, "GET", "/api/counter2/value").json() == {"value": before + 2}
    assert public(guide, "POST", "/api/counter2/value").status == 405


def test_seed_0_12_simultaneous_increments_are_all_counted(guide: ServerProcess) -> None:
    """The seed loses them: it reads, waits, and writes."""
    before = public(guide, "GET", "/api/counter2/value").json()["value"]
    with ThreadPoolExecutor(16) as pool:
        replies = list(
            pool.map(lambda _: public(guide, "POST", "/api/counter2/increment"), range(200))
        )
    assert sorted(reply.json()["value"] for reply in replies) == list(
        range(before + 1, before + 201)
    )


# --- what the guide claims -----------------------------------------------------------------------


def test_seed_0_26_state_is_kept_without_doing_anything(tmp_path: Path) -> None:
    """Through a crash, and through hibernation."""
    with running("counter_guide.app:app", tmp_path, idle_seconds=1) as server:
        with Socket(server, WS) as ws:
            ws.receive()
            ws.send(INCREMENT)
            assert ws.receive()["value"] == 1
            assert public(server, "POST", "/api/counter2/increment").json() == {"value": 1}
            server.kill()
        server.restart()
        assert public(server, "GET", "/api/counter2/value").json() == {"value": 1}
        with Socket(server, WS) as ws:
            assert ws.receive() == {"type": "update", "value": 1}
            wait_until_hibernated(server, "counter", "default")
            ws.send(INCREMENT)
            assert ws.receive() == {"type": "update", "value": 2}


def test_seed_0_24_the_server_listens_where_the_guide_says() -> None:
    assert Settings().listen == "127.0.0.1:8787"


def test_seed_0_25_the_readme_has_the_line_that_installs_it() -> None:
    readme = (ROOT / "README.md").read_text()
    extras = re.findall(r'pip install "dosql\[(\w+)\]"', readme)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras
    assert set(extras) <= set(project["optional-dependencies"])
    assert ADMIN_TOKEN not in readme
