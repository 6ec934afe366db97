"""WebSockets of the client, asynchronous and synchronous, against a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dosql.client import AsyncClient, AsyncStub, Client, Reconnect
from dosql.client._async.sockets import _extended
from dosql.client.reconnect import closed_error, worth_another
from dosql.errors import (
    AuthenticationError,
    ConflictError,
    ConnectionFailedError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from tests.support.server import ServerProcess

APP = "tests.support.socket_app:app"
SOON = Reconnect(delay_s_first=0.02, delay_s_max=0.1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("sockets") / "data", app=APP)
    yield server
    server.kill()


@pytest.fixture
def hall(
    program: ServerProcess, request: pytest.FixtureRequest
) -> Callable[[AsyncClient], AsyncStub]:
    """The test's own object."""
    return lambda client: client.namespace("hall").get_by_name(request.node.name)


def client_of(server: ServerProcess) -> AsyncClient:
    return AsyncClient(server.url, token=server.admin_token)


# --- messages --------------------------------------------------------------------------------


async def test_messages_go_both_ways(program: ServerProcess, hall: Callable) -> None:
    async with client_of(program) as client, hall(client).connect("/ws?name=ada") as ws:
        await ws.send("echo grüße")
        assert await ws.receive() == "grüße"
        await ws.send(b"\x00\xff")
        assert await ws.receive() == b"\x00\xff"
        await ws.send("who")
        assert await ws.receive() == "ada of 1, life 1"


def test_the_synchronous_socket_is_the_same(program: ServerProcess) -> None:
    with (
        Client(program.url, token=program.admin_token) as client,
        client.namespace("hall").get_by_name("sync").connect("/ws?name=ada") as ws,
    ):
        ws.send("all hello")
        ws.send("close 1000")
        assert list(ws) == ["hello"]
        assert (ws.close_code, ws.close_reason) == (1000, "as you wish")


async def test_headers_reach_the_object(program: ServerProcess, hall: Callable) -> None:
    async with client_of(program) as client:
        headers = {"Sec-WebSocket-Protocol": "chat.v2"}
        with pytest.raises(ConnectionFailedError, match="subprotocol"):
            async with hall(client).connect("/ws", headers=headers):
                """The library refuses a subprotocol that it was not told of; the object saw it."""


async def test_messages_larger_than_the_librarys_limit_arrive(
    program: ServerProcess, hall: Callable
) -> None:
    async with client_of(program) as client, hall(client).connect("/ws") as ws:
        await ws.send(f"echo {'x' * 1_000_000}")
        assert len(await ws.receive()) == 1_000_000


# --- what does not work ----------------------------------------------------------------------


async def test_a_refusal_of_the_object_is_an_error(program: ServerProcess, hall: Callable) -> None:
    async with client_of(program) as client:
        with pytest.raises(ForbiddenError) as caught:
            async with hall(client).connect("/ws?name=nobody"):
                pass
    assert caught.value.status == 403


async def test_errors_of_the_server_are_its_own(program: ServerProcess) -> None:
    async with AsyncClient(program.url, token="wrong") as client:
        with pytest.raises(AuthenticationError):
            async with client.namespace("hall").get_by_name("x").connect():
                pass
    async with client_of(program) as client:
        with pytest.raises(NotFoundError) as caught:
            async with client.namespace("no-such-hall").get_by_name("x").connect():
                pass
    assert caught.value.code == "namespace_not_found"


async def test_the_first_connection_is_not_repeated() -> None:
    async with AsyncClient("http://127.0.0.1:9") as client:
        with pytest.raises(ConnectionFailedError):
            async with client.namespace("hall").get_by_name("x").connect(reconnect=True):
                pass


async def test_a_socket_that_was_not_opened_cannot_be_used(program: ServerProcess) -> None:
    async with client_of(program) as client:
        ws = client.namespace("hall").get_by_name("x").connect()
        with pytest.raises(ConflictError):
            await ws.send("x")
        with pytest.raises(InvalidRequestError):
            client.namespace("hall").get_by_name("x").connect(headers={"Authorization": "x"})


# --- the end ---------------------------------------------------------------------------------


async def test_an_orderly_close_ends_the_iteration(program: ServerProcess, hall: Callable) -> None:
    async with client_of(program) as client, hall(client).connect("/ws") as ws:
        await ws.send("echo one")
        await ws.send("close 1000")
        assert [message async for message in ws] == ["one"]
        with pytest.raises(ConflictError) as caught:
            await ws.receive()
    assert caught.value.code == "websocket_closed"


async def test_a_code_of_the_application_is_final(program: ServerProcess, hall: Callable) -> None:
    async with client_of(program) as client:
        async with hall(client).connect("/ws", reconnect=SOON) as ws:
            await ws.send("close 4000")
            with pytest.raises(ConflictError, match="4000: as you wish"):
                await ws.receive()
            with pytest.raises(ConflictError):
                await ws.send("again")
        assert (ws.close_code, ws.connections) == (4000, 1)


async def test_without_reconnect_a_lost_connection_is_an_error(
    program: ServerProcess, hall: Callable
) -> None:
    async with client_of(program) as client, hall(client).connect("/ws") as ws:
        await ws.send("close 1012")
        with pytest.raises(UnavailableError) as caught:
            async for _ in ws:
                pass
    assert caught.value.code == "connection_lost" and caught.value.retryable


async def test_a_lost_connection_is_made_again(program: ServerProcess, hall: Callable) -> None:
    async with client_of(program) as client:
        stub = hall(client)
        async with (
            stub.connect("/ws?name=ada", reconnect=SOON) as ws,
            stub.connect("/ws?name=bob") as other,
        ):
            await ws.send("close 1012")
            waiting = asyncio.ensure_future(ws.receive())
            while not waiting.done():
                await other.send("all are you back?")
                await other.receive()
            assert "?" in await waiting
        assert ws.connections == 2


async def test_a_sender_makes_a_lost_connection_again_too(
    program: ServerProcess, hall: Callable
) -> None:
    async with client_of(program) as client:
        async with hall(client).connect("/ws?name=ada", reconnect=SOON) as ws:
            await ws.send("close 1012")
            assert ws._line is not None
            await ws._line.wait_closed()
            await ws.send("echo back")
            assert await ws.receive() == "back"
        assert ws.connections == 2


async def test_closing_ends_the_wait_for_another_connection(
    program: ServerProcess, hall: Callable
) -> None:
    async with client_of(program) as client:
        policy = Reconnect(delay_s_first=0.01, delay_s_max=0.01)
        async with hall(client).connect("/ws?name=ada", reconnect=policy) as ws:
            ws._url = "ws://127.0.0.1:9/"
            await ws.send("close 1012")
            waiting = asyncio.ensure_future(ws.receive())
            assert ws._line is not None
            await ws._line.wait_closed()
            await ws.aclose()
            with pytest.raises(ConflictError):
                await asyncio.wait_for(waiting, 10)


async def test_no_committed_message_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """A reader with a sequence number hears every message that its writer was told of."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ServerProcess(tmp_path / "data", app=APP, listen=f"127.0.0.1:{port}")
    heard: list[str] = []
    acknowledged: list[str] = []

    def resume(last: str | bytes | None) -> dict[str, str]:
        return {"after": str(last).partition(" ")[0] if last else "0"}

    async def read(client: AsyncClient) -> None:
        stub = client.namespace("hall").get_by_name("room")
        async with stub.connect("/ws?name=reader", reconnect=SOON, resume=resume) as ws:
            async for message in ws:
                assert isinstance(message, str)
                if message.partition(" ")[0].isdigit():
                    heard.append(message)
                if message.endswith("the end"):
                    return

    async def write(client: AsyncClient) -> None:
        stub = client.namespace("hall").get_by_name("room")
        async with stub.connect("/ws?name=writer", reconnect=SOON) as ws:
            for number in range(60):
                if number in (20, 40):
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.restart)
                await say(ws, f"message {number}")
            await say(ws, "the end")

    async def say(ws: object, text: str) -> None:
        """Until it is heard back: a message that may have been lost is said again."""
        while True:
            try:
                await ws.send(f"say {text}")  # type: ignore[attr-defined]
                while not (message := await ws.receive()).endswith(text):  # type: ignore[attr-defined]
                    pass
            except UnavailableError:
                continue
            acknowledged.append(message)
            return

    try:
        async with client_of(server) as client:
            reader = asyncio.create_task(read(client))
            await asyncio.wait_for(write(client), 60)
            await asyncio.wait_for(reader, 30)
    finally:
        server.kill()
    numbers = [int(message.partition(" ")[0]) for message in heard]
    assert numbers == list(range(1, len(numbers) + 1)), "each once, in order, without a gap"
    assert set(acknowledged) <= set(heard)


# --- by value --------------------------------------------------------------------------------


def test_delays_grow_are_random_and_bounded() -> None:
    policy = Reconnect(delay_s_first=1.0, delay_s_max=10.0)
    for attempt, longest in enumerate([1, 2, 4, 8, 10, 10]):
        delays = [policy.delay_s(attempt) for _ in range(200)]
        assert all(delay is not None and 0 <= delay <= longest for delay in delays)
        assert max(filter(None, delays)) > longest / 2
    assert policy.delay_s(10_000) is not None
    assert policy.delay_s(0, retry_after_s=7) == 7


def test_attempts_can_be_bounded() -> None:
    policy = Reconnect(attempts_max=2)
    assert policy.delay_s(1) is not None and policy.delay_s(2) is None


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013, 1014, 4008])
def test_codes_that_are_worth_another_connection(code: int) -> None:
    assert worth_another(closed_error(code, ""))


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4000, 4009])
def test_codes_that_are_an_answer(code: int) -> None:
    assert not worth_another(closed_error(code, ""))


def test_parameters_of_resume_replace_those_of_the_url() -> None:
    assert _extended("ws://h/p?a=1&after=0", {"after": "7 ä"}) == "ws://h/p?a=1&after=7+%C3%A4"
