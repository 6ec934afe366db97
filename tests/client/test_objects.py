"""Namespaces and stubs of the client: what goes over the wire, and what is made of the replies.

The other end is a function here. That stubs do what objects mean is tests/contracts/test_stubs.py.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
import pytest

from dosql.client import AsyncClient, AsyncStub, Client
from dosql.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ObjectError,
    ObjectResetError,
    OutcomeUnknownError,
    UnavailableError,
)
from dosql.fetch import Request
from dosql.ids import IdFactory

URL = "http://dosql.test"
Answer = httpx2.Response | Exception


class Server:
    """Answers each request by the next of ``answers``; the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def paths(self) -> list[str]:
        return [request.url.raw_path.decode() for request in self.requests]


def result(value: object) -> httpx2.Response:
    return httpx2.Response(200, json={"result": value})


def error(status: int, code: str, **more: object) -> httpx2.Response:
    body = {"error": f"It is {code}.", "code": code, "requestId": "r1", **more}
    return httpx2.Response(status, json=body, headers={"X-Request-ID": "r1"})


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., AsyncClient]]:
    """Clients of a `Server`; they are closed after the test."""
    clients: list[AsyncClient] = []

    def connect(server: Any, **settings: Any) -> AsyncClient:
        transport = httpx2.MockTransport(server)
        clients.append(AsyncClient(URL, token="t", transport=transport, **settings))
        return clients[-1]

    yield connect
    for client in clients:
        await client.aclose()


@dataclass
class Point:
    x: int
    y: int


class Room(Protocol):
    """What the caller knows of a class that runs elsewhere."""

    def corners(self) -> list[Point]: ...
    async def rename(self, title: str) -> Point: ...


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lobby", "/rpc/room/lobby/ping"),
        ("a/b", "/rpc/room/a%2Fb/ping"),
        ("..", "/rpc/room/%2E%2E/ping"),
        ("@" + "0" * 64, "/rpc/room/%40" + "0" * 64 + "/ping"),
        ("?x#y z%41", "/rpc/room/%3Fx%23y%20z%2541/ping"),
        ("日本", "/rpc/room/%E6%97%A5%E6%9C%AC/ping"),
    ],
)
async def test_any_name_is_one_segment_of_the_path(
    connect: Callable[..., AsyncClient], name: str, path: str
) -> None:
    server = Server(result(None))
    await connect(server).namespace("room").get_by_name(name).ping()
    assert server.paths == [path]


async def test_an_object_without_a_name_is_addressed_by_its_id(
    connect: Callable[..., AsyncClient],
) -> None:
    server = Server(result(None))
    rooms = connect(server).namespace("room")
    unique = rooms.new_unique_id()
    await rooms.get(unique).ping()
    await rooms.get(rooms.id_from_string(str(rooms.id_from_name("lobby")))).ping()
    await rooms.get(rooms.id_from_name("lobby")).ping()
    assert server.paths == [
        f"/rpc/room/@{unique}/ping",
        f"/rpc/room/@{rooms.id_from_name('lobby')}/ping",
        "/rpc/room/lobby/ping",
    ]


async def test_a_path_with_dots_does_not_lead_out_of_the_object(
    connect: Callable[..., AsyncClient],
) -> None:
    """With the admin token on the request it would lead into the routes of the administrator."""
    server = Server(httpx2.Response(200))
    stub = connect(server).namespace("room").get_by_name("lobby")
    await stub.fetch("/../../../admin/tenants")
    await stub.fetch("/a/./b?next=../c")
    assert server.paths == [
        "/objects/room/lobby/%2E%2E/%2E%2E/%2E%2E/admin/tenants",
        "/objects/room/lobby/a/%2E/b?next=../c",
    ]


@pytest.mark.parametrize("name", ["", "\ud800"])
async def test_a_name_that_cannot_be_sent_is_refused(
    connect: Callable[..., AsyncClient], name: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        connect(Server()).namespace("room").get_by_name(name)
    assert refused.value.code == "invalid_object_name"


@pytest.mark.parametrize("name", ["", "Room", "9lives", "a/b", "..", "a" * 64])
async def test_what_cannot_be_a_namespace_is_refused(
    connect: Callable[..., AsyncClient], name: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        connect(Server()).namespace(name)
    assert refused.value.code == "invalid_namespace"


async def test_an_id_of_another_namespace_is_refused(
    connect: Callable[..., AsyncClient],
) -> None:
    rooms = connect(Server()).namespace("room")
    with pytest.raises(InvalidRequestError, match="not valid for this namespace"):
        rooms.get(IdFactory("counter").from_name("lobby"))


# --- methods ------------------------------------------------------------------------------------


async def test_a_stub_with_a_class_gives_results_their_types_back(
    connect: Callable[..., AsyncClient],
) -> None:
    server = Server(result([{"x": 1, "y": 2}]), result({"x": 3, "y": 4}), result({"x": 5, "y": 6}))
    stub = connect(server).namespace("room", Room).get_by_name("lobby")
    assert await stub.corners() == [Point(1, 2)]
    assert await stub.rename("b") == Point(3, 4)
    assert await stub.call(Room.rename, "c") == Point(5, 6)


async def test_a_stub_without_a_class_gives_them_as_they_came(
    connect: Callable[..., AsyncClient],
) -> None:
    stub = connect(Server(result({"x": 1, "y": 2}))).namespace("room").get_by_name("lobby")
    assert await stub.rename("b") == {"x": 1, "y": 2}
    assert await stub.call(Room.rename, "c") == Point(1, 2)


async def test_a_method_that_the_class_has_not_got_is_an_attribute_error(
    connect: Callable[..., AsyncClient],
) -> None:
    stub = connect(Server()).namespace("room", Room).get_by_name("lobby")
    with pytest.raises(AttributeError, match="Room has no method 'renme'"):
        stub.renme("b")
    assert not hasattr(stub, "explode")


async def test_private_names_never_leave_the_client(connect: Callable[..., AsyncClient]) -> None:
    server = Server(result(None))
    stub = connect(server).namespace("room").get_by_name("lobby")
    with pytest.raises(AttributeError, match="private"):
        stub._secret()
    with pytest.raises(AttributeError):
        copy.copy(AsyncStub.__new__(AsyncStub))._methods  # noqa: B018
    assert server.requests == []


async def test_arguments_of_any_name_reach_the_method(connect: Callable[..., AsyncClient]) -> None:
    server = Server(result(None))
    stub = connect(server).namespace("room").get_by_name("lobby")

    def ping(room: Any, **named: int) -> None: ...

    await stub.call(ping, self=1, method=2, annotation=3)
    await stub.ping(self=1, method=2, annotation=3)
    bodies = {request.content for request in server.requests}
    assert bodies == {b'{"args":[],"kwargs":{"self":1,"method":2,"annotation":3}}'}


async def test_an_argument_that_cannot_be_sent_is_refused_before_anything_is(
    connect: Callable[..., AsyncClient],
) -> None:
    server = Server(result(None))
    with pytest.raises(InvalidRequestError) as refused:
        await connect(server).namespace("room").get_by_name("lobby").ping(object())
    assert refused.value.code == "invalid_arguments"
    assert server.requests == []


# --- errors and repetitions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (500, "object_error", ObjectError),
        (500, "object_reset", ObjectResetError),
        (503, "object_reset", ObjectResetError),
        (404, "method_not_found", NotFoundError),
        (409, "room_full", ConflictError),
    ],
)
async def test_errors_of_objects_arrive_as_their_own_classes(
    connect: Callable[..., AsyncClient], status: int, code: str, expected: type[Exception]
) -> None:
    stub = connect(Server(error(status, code))).namespace("room").get_by_name("lobby")
    with pytest.raises(expected) as raised:
        await stub.ping()
    assert getattr(raised.value, "code", None) == code
    assert getattr(raised.value, "remote", None) is (expected is ObjectError)


async def test_a_call_whose_reply_is_lost_is_repeated_under_the_same_key(
    connect: Callable[..., AsyncClient],
) -> None:
    server = Server(httpx2.ReadError("gone"), result(7))
    stub = connect(server).namespace("room").get_by_name("lobby")
    assert await stub.increment() == 7
    assert await stub.increment() == 7
    first, again, next_call = [r.headers["idempotency-key"] for r in server.requests]
    assert first == again != next_call


async def test_a_call_whose_reply_stays_lost_has_an_unknown_outcome(
    connect: Callable[..., AsyncClient],
) -> None:
    server = Server(httpx2.ReadError("gone"))
    with pytest.raises(OutcomeUnknownError):
        await connect(server, retries=1).namespace("room").get_by_name("lobby").increment()
    assert len(server.requests) == 2


async def test_calls_on_one_stub_go_one_after_the_other(
    connect: Callable[..., AsyncClient],
) -> None:
    under_way: list[str] = []
    order: list[str] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        name = request.url.path.rpartition("/")[2]
        under_way.append(name)
        assert under_way == [name]
        order.append(name)
        for _ in range(5):
            await asyncio.sleep(0)
        under_way.remove(name)
        return result(None)

    stub = connect(answer).namespace("room").get_by_name("lobby")
    await asyncio.gather(stub.first(), stub.second(), stub.fetch("/third"), stub.fourth())
    assert order == ["first", "second", "third", "fourth"]


async def test_calls_on_several_stubs_do_not_wait_for_each_other(
    connect: Callable[..., AsyncClient],
) -> None:
    both = asyncio.Barrier(2)

    async def answer(request: httpx2.Request) -> httpx2.Response:
        async with asyncio.timeout(10):
            await both.wait()
        return result(None)

    rooms = connect(answer).namespace("room")
    await asyncio.gather(rooms.get_by_name("a").ping(), rooms.get_by_name("a").ping())


async def test_a_cancelled_call_lets_the_next_one_go(connect: Callable[..., AsyncClient]) -> None:
    arrived = asyncio.Event()

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("hang"):
            arrived.set()
            await asyncio.Event().wait()
        return result(None)

    stub = connect(answer).namespace("room").get_by_name("lobby")
    hanging = asyncio.create_task(stub.hang())
    await arrived.wait()
    following = asyncio.create_task(stub.ping())
    hanging.cancel()
    assert await following is None


# --- fetch --------------------------------------------------------------------------------------


async def test_any_status_of_the_object_is_a_reply(connect: Callable[..., AsyncClient]) -> None:
    server = Server(httpx2.Response(503, text="come back later", headers={"Retry-After": "1"}))
    reply = await connect(server).namespace("room").get_by_name("lobby").fetch("/")
    assert (reply.status, reply.ok, await reply.text()) == (503, False, "come back later")
    assert len(server.requests) == 1


async def test_an_error_of_the_server_is_raised(connect: Callable[..., AsyncClient]) -> None:
    server = Server(error(404, "namespace_not_found"))
    with pytest.raises(NotFoundError) as raised:
        await connect(server).namespace("room").get_by_name("lobby").fetch("/")
    assert raised.value.code == "namespace_not_found"


@pytest.mark.parametrize("request_id", ["r2", None])
async def test_a_reply_that_only_looks_like_an_error_of_the_server_is_a_reply(
    connect: Callable[..., AsyncClient], request_id: str | None
) -> None:
    body = {"error": "mine", "code": "mine", "requestId": "r1"}
    headers = {} if request_id is None else {"X-Request-ID": request_id}
    server = Server(httpx2.Response(409, json=body, headers=headers))
    reply = await connect(server).namespace("room").get_by_name("lobby").fetch("/")
    assert (reply.status, await reply.json()) == (409, body)


async def test_a_retryable_error_of_the_server_is_repeated_for_any_method(
    connect: Callable[..., AsyncClient],
) -> None:
    """It says that nothing was done."""
    server = Server(error(503, "unavailable", retryable=True), httpx2.Response(201))
    stub = connect(server).namespace("room").get_by_name("lobby")
    reply = await stub.fetch("/", method="POST", body="x")
    assert reply.status == 201
    assert [request.content for request in server.requests] == [b"x", b"x"]


@pytest.mark.parametrize(
    ("method", "attempts", "expected"),
    [
        ("GET", 2, UnavailableError),
        ("OPTIONS", 2, UnavailableError),
        ("POST", 1, OutcomeUnknownError),
        ("PUT", 1, OutcomeUnknownError),
    ],
)
async def test_only_what_http_calls_safe_is_repeated_when_its_reply_is_lost(
    connect: Callable[..., AsyncClient], method: str, attempts: int, expected: type[Exception]
) -> None:
    server = Server(httpx2.ReadError("gone"))
    stub = connect(server, retries=1).namespace("room").get_by_name("lobby")
    with pytest.raises(expected):
        await stub.fetch("/", method=method)
    assert len(server.requests) == attempts


async def test_the_headers_of_one_connection_are_not_forwarded(
    connect: Callable[..., AsyncClient],
) -> None:
    server = Server(httpx2.Response(200, headers={"Connection": "close", "X-Reply": "yes"}))
    stub = connect(server).namespace("room").get_by_name("lobby")
    sent = {"Host": "elsewhere", "Content-Length": "99", "Connection": "close", "X-Sample": "yes"}
    reply = await stub.fetch(Request("http://elsewhere/a?b=c", "POST", sent, "body"))
    request = server.requests[0]
    assert request.url == f"{URL}/objects/room/lobby/a?b=c"
    assert request.headers["host"] == "dosql.test"
    assert request.headers["content-length"] == "4"
    assert request.headers["x-sample"] == "yes"
    assert request.headers["accept"] == "*/*"
    assert reply.headers["x-reply"] == "yes"
    assert "connection" not in reply.headers


async def test_the_token_of_the_client_is_not_replaced_by_a_header(
    connect: Callable[..., AsyncClient],
) -> None:
    stub = connect(Server()).namespace("room").get_by_name("lobby")
    with pytest.raises(InvalidRequestError) as refused:
        await stub.fetch("/", headers={"Authorization": "Bearer other"})
    assert refused.value.code == "invalid_header"


async def test_a_request_beside_its_own_parts_is_refused(
    connect: Callable[..., AsyncClient],
) -> None:
    stub = connect(Server()).namespace("room").get_by_name("lobby")
    with pytest.raises(InvalidRequestError, match="replace"):
        await stub.fetch(Request("/"), method="POST")


async def test_a_reply_without_a_length_is_drawn_as_it_is_read(
    connect: Callable[..., AsyncClient],
) -> None:
    drawn: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            drawn.append(number)
            yield b"%d" % number

    stub = connect(Server(httpx2.Response(200, content=pieces()))).namespace("room")
    reply = await stub.get_by_name("lobby").fetch("/events")
    assert reply.is_stream
    assert drawn == []
    assert [piece async for piece in reply.chunks()] == [b"0", b"1", b"2"]


async def test_a_stream_that_breaks_off_is_an_error(connect: Callable[..., AsyncClient]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        raise httpx2.ReadError("gone")

    stub = connect(Server(httpx2.Response(200, content=pieces()))).namespace("room")
    reply = await stub.get_by_name("lobby").fetch("/events")
    with pytest.raises(UnavailableError) as raised:
        await reply.bytes()
    assert raised.value.code == "connection_lost"


async def test_compressed_bytes_arrive_as_the_object_made_them(
    connect: Callable[..., AsyncClient],
) -> None:
    server = Server(
        httpx2.Response(
            200,
            stream=httpx2.ByteStream(b"\x1f\x8b not gzip"),
            headers={"content-encoding": "gzip", "content-length": "11"},
        )
    )
    reply = await connect(server).namespace("room").get_by_name("lobby").fetch("/")
    assert await reply.bytes() == b"\x1f\x8b not gzip"
    assert server.requests[0].headers["accept-encoding"] == "identity"


# --- the synchronous client ---------------------------------------------------------------------


def test_the_synchronous_client_does_the_same_without_await() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/rpc"):
            return result({"x": 1, "y": 2})
        if request.url.path.startswith("/admin"):
            return httpx2.Response(200, json={"objects": [], "cursor": None})
        return httpx2.Response(201, json=[1], headers={"X-Reply": "yes"})

    with Client(URL, transport=httpx2.MockTransport(answer)) as client:
        rooms = client.namespace("room", Room)
        stub = rooms.get_by_name("lobby")
        assert stub.rename("b") == Point(1, 2)
        assert stub.rename("b") == Point(1, 2)
        reply = stub.fetch("/")
        assert (reply.status, reply.ok, reply.json(list[int])) == (201, True, [1])
        assert (reply.text(), reply.bytes(), list(reply.chunks())) == ("[1]", b"[1]", [b"[1]"])
        assert reply.headers["x-reply"] == "yes"
        with pytest.raises(InvalidRequestError):
            reply.json(str)
        assert rooms.list().objects == []


def test_the_synchronous_client_streams_too() -> None:
    class Pieces(httpx2.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield from (b"a", b"b")

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, stream=Pieces()))
    with Client(URL, transport=transport) as client:
        reply = client.namespace("room").get_by_name("lobby").fetch("/")
        assert reply.is_stream
        assert list(reply.chunks()) == [b"a", b"b"]
        with pytest.raises(ConflictError) as raised:
            reply.bytes()
        assert raised.value.code == "body_used"
