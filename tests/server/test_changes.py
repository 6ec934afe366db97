"""``/changes`` of a real server: events, messages, pages, slots, tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.server import ServerProcess

JSON = {"Accept": "application/json"}


class Events:
    """One open stream of server-sent events."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self._chunks = response.iter_bytes()
        self._buffer = b""

    def block(self) -> dict[str, str]:
        """The next block, whatever is in it."""
        while b"\n\n" not in self._buffer:
            self._buffer += next(self._chunks)
        block, _, self._buffer = self._buffer.partition(b"\n\n")
        lines = [line.partition(":") for line in block.decode().split("\n")]
        return {name: value.removeprefix(" ") for name, _, value in lines}

    def next(self) -> dict[str, Any]:
        """The next event with its data."""
        while True:
            block = self.block()
            if "data" in block:
                data: dict[str, Any] = json.loads(block["data"])
                return {"event": block["event"], "id": block["id"], **data}

    def ended(self) -> bool:
        """Whether the server ends it, in order."""
        return b"".join(self._chunks) is not None


@contextmanager
def events(
    server: ServerProcess, tenant: str, query: str = "", *, token: str | None = None, **headers: str
) -> Iterator[Events]:
    sent = {"Authorization": f"Bearer {token or server.admin_token}", **headers}
    with (
        httpx2.Client(base_url=server.url, timeout=20, trust_env=False) as client,
        client.stream("GET", f"/t/{tenant}/changes{query}", headers=sent) as response,
    ):
        yield Events(response)


@contextmanager
def socket(
    server: ServerProcess, tenant: str, query: str = "", *, token: str | None = None
) -> Iterator[ClientConnection]:
    url = f"{server.url.replace('http', 'ws')}/t/{tenant}/changes{query}"
    headers = {"Authorization": f"Bearer {token or server.admin_token}"}
    with connect(url, additional_headers=headers) as connection:
        yield connection


def message(connection: ClientConnection) -> Any:
    return json.loads(connection.recv(timeout=60))


@pytest.fixture
def tenant(shared_server: ServerProcess) -> str:
    """Followed already, so that everything behind 0 is kept; with an empty table."""
    return followed_tenant(shared_server)


def followed_tenant(server: ServerProcess) -> str:
    name = server.new_tenant()
    server.sql(name, "run", "CREATE TABLE items (id INTEGER PRIMARY KEY, value)")
    assert server.request("GET", "/changes", tenant=name, headers=JSON).status == 200
    return name


def insert(server: ServerProcess, tenant: str, value: object) -> None:
    reply = server.sql(tenant, "run", "INSERT INTO items (value) VALUES (?)", [value])
    assert reply.status == 200


def test_server_sent_events(shared_server: ServerProcess, tenant: str) -> None:
    with events(shared_server, tenant) as stream:
        assert stream.block()["id"] == "0", "so a client that is cut off now goes on from here"
        insert(shared_server, tenant, "a\r\nb")
        told = stream.next()
        assert told.pop("timestamp").endswith("Z")
        assert told.pop("txid") > 0
        assert told == {
            "event": "change",
            "id": "1",
            "seq": 1,
            "type": "insert",
            "table": "items",
            "pk": {"id": 1},
            "old": None,
            "new": {"id": 1, "value": "a\r\nb"},
        }
        shared_server.sql(tenant, "run", "ALTER TABLE items ADD COLUMN more")
        assert (stream.next())["event"] == "schema"
        shared_server.sql(tenant, "run", "UPDATE items SET value = ?", [{"$blob": "AP8="}])
        told = stream.next()
        assert (told["type"], told["old"]["value"]) == ("update", "a\r\nb")
        assert told["new"] == {"id": 1, "value": {"$blob": "AP8="}, "more": None}


def test_a_stream_goes_on_behind_the_last_event_id(
    shared_server: ServerProcess, tenant: str
) -> None:
    for number in range(3):
        insert(shared_server, tenant, number)
    with events(shared_server, tenant, "?after=0", **{"Last-Event-ID": "2"}) as stream:
        assert stream.next()["seq"] == 3


def test_filters(shared_server: ServerProcess, tenant: str) -> None:
    shared_server.sql(tenant, "run", "CREATE TABLE other (a)")
    insert(shared_server, tenant, 1)
    shared_server.sql(tenant, "run", "INSERT INTO other VALUES (1)")
    shared_server.sql(tenant, "run", "DELETE FROM items")

    def told(query: str) -> Any:
        reply = shared_server.request(
            "GET", f"/changes?after=0&{query}", tenant=tenant, headers=JSON
        )
        assert reply.json()["cursor"] == 4, "also of what was left out"
        return [(each["type"], each["table"]) for each in reply.json()["changes"]]

    assert told("tables=ITEMS") == [("insert", "items"), ("delete", "items")]
    assert told("operations=insert,update") == [("insert", "items"), ("insert", "other")]
    assert told("operations=schema&tables=other") == [("schema", "other")]
    with events(shared_server, tenant, "?after=0&tables=other&operations=insert") as stream:
        assert stream.next()["seq"] == 3
        assert stream.block() == {"": "alive", "id": "4"}


def test_pages(shared_server: ServerProcess, tenant: str) -> None:
    for number in range(5):
        insert(shared_server, tenant, number)
    seen: list[int] = []
    cursor, more = 0, True
    while more:
        path = f"/changes?after={cursor}&limit=2&follow=false"
        reply = shared_server.request("GET", path, tenant=tenant)
        assert reply.headers["dosql-bookmark"]
        page = reply.json()
        seen += [each["seq"] for each in page["changes"]]
        cursor, more = page["cursor"], page["more"]
    assert seen == [1, 2, 3, 4, 5]


def test_a_subscriber_that_comes_too_late_is_told_to_copy(shared_server: ServerProcess) -> None:
    name = shared_server.new_tenant()
    shared_server.sql(name, "run", "CREATE TABLE items (id INTEGER PRIMARY KEY, value)")
    insert(shared_server, name, "before anybody followed")
    with events(shared_server, name, "?after=0") as stream:
        told = stream.next()
        assert (told["event"], told["id"], told["seq"]) == ("reset", "1", 1)
        assert told["bookmark"]
        insert(shared_server, name, "after")
        assert stream.next()["new"]["value"] == "after"


def test_messages(shared_server: ServerProcess, tenant: str) -> None:
    insert(shared_server, tenant, 1)
    with socket(shared_server, tenant, "?after=0") as connection:
        told = message(connection)
        assert (told["seq"], told["type"], told["new"]) == (1, "insert", {"id": 1, "value": 1})
        insert(shared_server, tenant, 2)
        assert message(connection)["seq"] == 2
    with socket(shared_server, tenant) as connection:
        assert message(connection) == {"seq": 2, "type": "progress"}


def test_slots(shared_server: ServerProcess, tenant: str) -> None:
    def request(method: str, path: str, body: object = None) -> Any:
        return shared_server.request(
            method, f"/changes{path}", json=body, tenant=tenant, headers=JSON
        )

    created = request("POST", "/slots", {"name": "copy"})
    assert created.status == 201
    assert created.json()["acked"] == 0
    assert request("POST", "/slots", {"name": "copy"}).code == "slot_exists"
    for number in range(4):
        insert(shared_server, tenant, number)
    assert [each["seq"] for each in request("GET", "?slot=copy").json()["changes"]] == [1, 2, 3, 4]
    assert request("POST", "/slots/copy/ack", {"seq": 2}).json()["behind"] == 2
    assert request("POST", "/slots/copy/ack", {"seq": 1}).json()["acked"] == 2
    assert request("POST", "/slots/copy/ack", {"seq": 9}).code == "invalid_sequence"
    assert [each["seq"] for each in request("GET", "?slot=copy").json()["changes"]] == [3, 4]
    with socket(shared_server, tenant, "?slot=copy") as connection:
        assert [message(connection)["seq"] for _ in range(2)] == [3, 4]
        connection.send('{"ack": 3}')
        shared_server.wait_for(
            lambda: request("GET", "/slots").json()["slots"][0]["acked"] == 3, "the ack"
        )
        connection.send('{"ack": "x"}')
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "invalid_request")
    assert request("DELETE", "/slots/copy").status == 204
    assert request("DELETE", "/slots/copy").code == "slot_not_found"
    assert request("GET", "?slot=copy").code == "slot_not_found"
    assert request("POST", "/slots", {"name": "No!"}).code == "invalid_slot_name"


def test_a_read_only_token_may_follow_and_not_acknowledge(
    shared_server: ServerProcess, tenant: str
) -> None:
    token = shared_server.new_token(tenant, "read-only")
    insert(shared_server, tenant, 1)
    with events(shared_server, tenant, "?after=0", token=token) as stream:
        assert stream.next()["seq"] == 1
    reply = shared_server.request(
        "POST", "/changes/slots", json={"name": "x"}, tenant=tenant, token=token
    )
    assert (reply.status, reply.code) == (403, "read_only")
    assert shared_server.request("GET", "/changes/slots", tenant=tenant, token=token).status == 200


def test_nobody_else_may_follow(shared_server: ServerProcess, tenant: str) -> None:
    other = shared_server.new_token(shared_server.new_tenant())
    for token, status in ((None, 401), ("wrong", 401), (other, 404)):
        reply = shared_server.request("GET", "/changes", tenant=tenant, token=token)
        assert reply.status == status
    with pytest.raises(InvalidStatus) as refused, socket(shared_server, tenant, token=other):
        pass
    assert refused.value.response.status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=x",
        "after=",
        "limit=0",
        "follow=maybe",
        "operations=drop",
        "tables=",
        "x=1",
    ],
)
def test_a_wrong_parameter_is_said(shared_server: ServerProcess, tenant: str, query: str) -> None:
    reply = shared_server.request("GET", f"/changes?{query}", tenant=tenant)
    assert (reply.status, reply.code) == (400, "invalid_request")


def test_other_methods_and_paths_are_refused(shared_server: ServerProcess, tenant: str) -> None:
    for method, path, status in (
        ("POST", "/changes", 405),
        ("GET", "/changes/slots/x", 405),
        ("GET", "/changes/nothing", 404),
        ("GET", "/changes/slots/", 404),
    ):
        assert shared_server.request(method, path, tenant=tenant).status == status


def test_a_hibernated_tenant_wakes_for_a_write_and_not_for_its_followers(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(idle_seconds=0.2)
    name = followed_tenant(server)
    with events(server, name) as stream:
        server.wait_for(
            lambda: server.request("GET", f"/admin/tenants/{name}").json()["state"] == "hibernated",
            "the sleep",
        )
        insert(server, name, "woken")
        assert stream.next()["new"]["value"] == "woken"


def test_a_shutdown_ends_the_streams_and_a_restart_goes_on(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(changes="on")
    name = server.new_tenant()
    server.sql(name, "run", "CREATE TABLE items (id INTEGER PRIMARY KEY, value)")
    with events(server, name) as stream, socket(server, name) as connection:
        start = int(stream.block()["id"])
        assert message(connection)["seq"] == start
        server.process.terminate()
        assert stream.ended()
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert server.stop() == 0
    server.restart()
    insert(server, name, "later")
    with events(server, name, f"?after={start}") as stream:
        assert stream.next()["new"]["value"] == "later"
    with events(server, name, "?after=0") as stream:
        assert stream.next()["event"] == "schema", "captured from the first statement on"


def test_too_many_followers_are_refused(start_server: Callable[..., ServerProcess]) -> None:
    prelude = "from dosql import limits; limits.CHANGE_SUBSCRIBERS_MAX = 1"
    server = start_server(prelude=prelude)
    name = followed_tenant(server)
    with events(server, name) as stream:
        stream.block()
        with events(server, name) as second:
            assert second.status == 429
