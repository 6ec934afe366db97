"""A restore that says how far it is, over a real server and line by line."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dosql.errors import CorruptError, NotFoundError
from dosql.replica.reading import OnProgress
from dosql.testing.clock import ManualClock
from dosql.wire.body import Body
from server.asgi import Message
from server.context import SCOPE_KEY, RequestContext
from server.progress_stream import ProgressStream
from tests.support.server import Reply, ServerProcess

LINES = {"Accept": "application/x-ndjson"}
ROWS = 40


_NO_MERGES = """
from dosql.replica.plan import LEVEL_SPAN_MS
for level in LEVEL_SPAN_MS:
    LEVEL_SPAN_MS[level] = 10**13
"""
"""So that each state keeps a file of its own, however long a test takes."""


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server(prelude=_NO_MERGES)


def filled(server: ServerProcess) -> tuple[str, list[str]]:
    """A tenant whose every row came with a commit of its own, and the bookmark of each state."""
    tenant = server.new_tenant()
    marks = [server.sql(tenant, "run", "CREATE TABLE items(id INTEGER PRIMARY KEY, value)")]
    for _ in range(ROWS):
        marks.append(server.sql(tenant, "run", "INSERT INTO items(value) VALUES (1)"))
    return tenant, [reply.headers["dosql-bookmark"] for reply in marks]


def count(server: ServerProcess, tenant: str) -> int:
    reply = server.sql(tenant, "queryOne", "SELECT count(*) AS n FROM items")
    n: int = reply.json()["row"]["n"]
    return n


def restore(server: ServerProcess, tenant: str, body: object, **headers: str) -> Reply:
    path = f"/admin/tenants/{tenant}/restore"
    return server.request("POST", path, json=body, headers={**LINES, **headers})


def told(body: bytes) -> tuple[list[tuple[int, int]], Any]:
    """The progress of all lines but the last, and the last."""
    assert body.endswith(b"\n")
    *steps, last = [json.loads(line) for line in body.splitlines()]
    assert all(set(step) == {"progress"} for step in steps)
    progress = [step["progress"] for step in steps]
    return [(step["bytesRead"], step["bytesTotal"]) for step in progress], last


# --- over a server ----------------------------------------------------------------------------


def test_the_lines_end_at_the_total_and_with_the_ordinary_reply(
    server: ServerProcess,
) -> None:
    tenant, marks = filled(server)
    body = {"at": marks[-2], "dryRun": True}
    ordinary = restore(server, tenant, body, Accept="application/json")
    assert ordinary.headers["content-type"] == "application/json"
    reply = restore(server, tenant, body)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    steps, last = told(reply.body)
    assert last == {"result": ordinary.json()}
    total = last["result"]["bytesRead"]
    assert last["result"]["files"] > 1
    assert (steps[0], steps[-1]) == ((0, total), (total, total))
    assert steps == sorted(set(steps))


def test_what_is_told_is_what_happens(server: ServerProcess) -> None:
    tenant, marks = filled(server)
    _, last = told(restore(server, tenant, {"at": marks[5]}).body)
    assert count(server, tenant) == 5
    copy = f"{tenant}-copy"
    undo = {"at": last["result"]["undoBookmark"], "to": copy}
    _, made = told(restore(server, tenant, undo).body)
    assert (made["result"]["tenant"], count(server, copy)) == (copy, ROWS)


def test_what_is_refused_before_the_work_has_its_own_status(shared_server: ServerProcess) -> None:
    tenant, marks = filled(shared_server)
    for name, body, status, code in (
        (tenant, {"at": "yesterday"}, 400, "invalid_time"),
        (tenant, {"at": "1999-01-01T00:00:00Z"}, 404, "restore_point_not_found"),
        (tenant, {"at": marks[0], "to": tenant}, 409, "tenant_exists"),
        (tenant, {"at": marks[0], "too": "other"}, 400, "invalid_request"),
        ("nobody", {"at": marks[0]}, 404, "tenant_not_found"),
    ):
        reply = restore(shared_server, name, body)
        assert (reply.status, reply.code) == (status, code)
        assert reply.headers["content-type"] == "application/json"


def damage(server: ServerProcess, tenant: str, mark: str) -> None:
    """Flip a bit of the tenant's file of this state."""
    info = server.request("GET", f"/admin/tenants/{tenant}").json()
    txid = mark.partition("-")[0]
    (path,) = Path(info["replicaUrl"].removeprefix("file://")).rglob(f"{txid}-{txid}.ltx")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_an_error_in_the_middle_is_the_last_line(server: ServerProcess) -> None:
    tenant, marks = filled(server)
    sound = restore(server, tenant, {"at": marks[-1], "dryRun": True})
    assert "result" in told(sound.body)[1], "it is all in the bucket"
    damage(server, tenant, marks[ROWS // 2])
    body = {"at": marks[-1], "to": f"{tenant}-copy"}
    ordinary = restore(server, tenant, body, Accept="application/json")
    reply = restore(server, tenant, body)
    assert reply.status == 200
    steps, last = told(reply.body)
    assert steps[0][0] == 0
    assert steps[-1][0] < steps[-1][1], "not all could be read"
    assert steps == sorted(set(steps))
    assert (ordinary.status, ordinary.code) == (503, "replica_gap")
    assert (last["status"], last["code"]) == (503, "replica_gap")
    assert (last["error"], last["requestId"]) == (
        ordinary.json()["error"],
        reply.headers["x-request-id"],
    )
    assert server.request("GET", f"/admin/tenants/{tenant}-copy").status == 404
    assert count(server, tenant) == ROWS
    server.wait_for(
        lambda: any(
            (line.get("requestId"), line.get("status")) == (last["requestId"], 503)
            for line in server.log_lines("request")
        ),
        "the log says how the request ended",
    )


_HELD = """
import time
from pathlib import Path
from dosql.host import time_travel
check = time_travel.check_database
def held(path):
    while not Path({go!r}).exists():
        time.sleep(0.01)
    check(path)
time_travel.check_database = held
"""


def test_a_client_that_goes_away_in_the_middle_gets_its_restore_once(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """It leaves when all has been read, and nothing been changed."""
    go = tmp_path / "go"
    server = start_server(prelude=_NO_MERGES + _HELD.format(go=str(go)))
    tenant, marks = filled(server)
    body = json.dumps({"at": marks[5]}).encode()
    request = (
        f"POST /admin/tenants/{tenant}/restore HTTP/1.1\r\nHost: x\r\n"
        f"Accept: application/x-ndjson\r\nAuthorization: Bearer {server.admin_token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request.encode() + body)
        received = b""
        while b"progress" not in received:
            data = connection.recv(65536)
            assert data, received
            received += data
    assert count(server, tenant) == ROWS
    go.touch()
    server.wait_for(lambda: count(server, tenant) == 5, "the restore goes on")
    info = server.request("GET", f"/admin/tenants/{tenant}").json()
    assert info["txid"] == int(marks[-1].partition("-")[0], 16) + 1, "one commit"


def test_the_document_names_both_replies(shared_server: ServerProcess) -> None:
    document = shared_server.request("GET", "/schema/openapi.json").json()
    operation = document["paths"]["/admin/tenants/{name}/restore"]["post"]
    schemas = {
        kind: content["schema"]["$ref"].rpartition("/")[2]
        for kind, content in operation["responses"]["200"]["content"].items()
    }
    assert schemas == {"application/json": "RestoreReply", "application/x-ndjson": "RestoreLine"}
    assert {"RestoreReply", "RestoreLine", "BytesProgress"} <= set(
        document["components"]["schemas"]
    )


# --- line by line -----------------------------------------------------------------------------


class Done(Body):
    """A result."""

    n: int


class Client:
    """Takes messages; `open` says whether it reads."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fault: Exception | None = None

    async def send(self, message: Message) -> None:
        if self.fault is not None:
            raise self.fault
        self.messages.append(message)
        await self.open.wait()

    @property
    def lines(self) -> list[Any]:
        return [json.loads(each["body"]) for each in self.messages[1:]]

    @property
    def read(self) -> list[int]:
        return [each["progress"]["bytesRead"] for each in self.lines if "progress" in each]


class Work:
    """Work that a test does step by step."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.end: asyncio.Future[Body] = asyncio.get_running_loop().create_future()
        self.client = Client()
        self.context = RequestContext("id", {})
        self.cancelled = False
        self.tell: OnProgress
        stream = ProgressStream(self._run, self.clock)
        scope = {SCOPE_KEY: self.context}
        self.reply = asyncio.ensure_future(stream(scope, _never, self.client.send))

    async def _run(self, tell: OnProgress) -> Body:
        self.tell = tell
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def told(self, done: int, total: int = 100) -> None:
        """On a thread, as the real work does; all that follows from it has happened."""
        thread = threading.Thread(target=self.tell, args=(done, total))
        thread.start()
        thread.join()
        await self.clock.settle()


async def _never() -> Any:
    raise AssertionError


@pytest.fixture
async def work() -> Work:
    begun = Work()
    await begun.clock.settle()
    return begun


async def test_lines_are_paced_by_the_clock_and_the_first_and_the_last_always_come(
    work: Work,
) -> None:
    await work.told(0)
    assert work.client.read == [0]
    for done in range(1, 50):
        await work.told(done)
    assert work.client.read == [0]
    work.clock.advance(1)
    await work.told(50)
    await work.told(51)
    assert work.client.read == [0, 50]
    await work.told(100)
    assert work.client.read == [0, 50, 100], "the end is not waited for"
    work.end.set_result(Done(1))
    await work.reply
    assert work.client.read == [0, 50, 100]
    assert work.client.lines[-1] == {"result": {"n": 1}}
    assert [each.get("more_body") for each in work.client.messages[1:]] == [True] * 3 + [False]


async def test_the_first_line_comes_even_if_the_work_is_faster_than_the_reply(work: Work) -> None:
    for done in (0, 30, 100):
        work.tell(done, 100)  # the loop does not run in between
    await work.clock.settle()
    assert work.client.read == [0, 100]
    work.end.set_result(Done(1))
    await work.reply


async def test_the_newest_that_was_held_back_comes_before_the_outcome(work: Work) -> None:
    await work.told(0)
    await work.told(40)
    work.end.set_exception(CorruptError("Damaged.", code="replica_gap"))
    await work.reply
    assert work.client.read == [0, 40]
    assert work.client.lines[-1] == {
        "status": 503,
        "error": "Damaged.",
        "code": "replica_gap",
        "requestId": "id",
    }
    assert (work.context.status, work.context.code) == (503, "replica_gap")


async def test_a_client_that_does_not_read_holds_nothing_up_and_misses_lines(work: Work) -> None:
    await work.told(0)
    work.client.open.clear()
    for done in range(1, 101):
        work.clock.advance(1)
        await work.told(done)
    assert work.client.read == [0, 1], "one line is on its way, and no other is kept"
    work.end.set_result(Done(1))
    await work.clock.settle()
    work.client.open.set()
    await work.reply
    assert work.client.read == [0, 1, 100]
    assert work.client.lines[-1] == {"result": {"n": 1}}


async def test_an_error_before_the_first_line_is_raised_and_nothing_is_sent(work: Work) -> None:
    work.end.set_exception(NotFoundError("None.", code="tenant_not_found"))
    with pytest.raises(NotFoundError):
        await work.reply
    assert work.client.messages == []


async def test_work_without_progress_has_a_result_all_the_same(work: Work) -> None:
    work.end.set_result(Done(1))
    await work.reply
    assert work.client.lines == [{"result": {"n": 1}}]


async def test_a_client_that_goes_away_leaves_the_work_to_its_end(work: Work) -> None:
    await work.told(0)
    work.client.fault = OSError("gone")
    await work.told(100)
    assert not work.reply.done(), "the request lasts as long as its work"
    work.end.set_result(Done(1))
    with pytest.raises(OSError, match="gone"):
        await work.reply
    assert not work.cancelled


async def test_a_server_that_gives_the_request_up_gives_the_work_up(work: Work) -> None:
    await work.told(0)
    work.reply.cancel()
    await work.clock.settle()
    assert work.reply.done()
    with pytest.raises(asyncio.CancelledError):
        await work.reply
    assert work.cancelled
