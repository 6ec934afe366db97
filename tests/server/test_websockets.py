"""WebSockets on the network: real connections to uvicorn with our protocol, one object behind it.

The object is bare (`Sockets` and handlers); what a whole server does with real objects is in
test_object_sockets.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dosql.clock import SystemClock
from dosql.errors import ConflictError
from dosql.fetch import Response
from dosql.limits import SOCKET_OUTBOX_BYTES_MAX
from dosql.objects.connections import Connection, SocketEvent
from dosql.objects.sockets import Sockets
from dosql.objects.websocket import WebSocket, WebSocketPair
from server.asgi import ClientGone
from server.socket_protocol import SocketServer, upgrade_protocol
from server.socket_sweep import SocketSweep
from server.websockets import answer_upgrade, expect_upgrade
from tests.support.raw_sockets import RawSocket, masked

MESSAGE_BYTES_MAX = 100_000


class Site:
    """A server with one object. Tests read ``log`` and replace ``fetch``."""

    def __init__(self) -> None:
        self.sweep = SocketSweep()
        self.sockets = Sockets(self.deliver, SystemClock())
        self.sockets.activate(lambda action: action())
        self.log: list[tuple[Any, ...]] = []
        self.told = asyncio.Condition()
        self.fetch: Callable[[], Response] = self.accept
        self.may_end: asyncio.Event | None = None
        self.failures: list[Exception] = []
        self.port = 0
        self.raw_sockets: list[RawSocket] = []

    def accept(self) -> Response:
        client, server = WebSocketPair()
        self.sockets.accept(server)
        return Response(status=101, web_socket=client, headers=self.headers)

    headers: dict[str, str] = {}  # noqa: RUF012

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await expect_upgrade(receive)
        try:
            await answer_upgrade(scope, send, self.fetch(), [(b"x-request-id", b"r1")])
        except (ClientGone, ConflictError) as error:
            self.failures.append(error)

    async def deliver(
        self, connection: Connection, event: SocketEvent, started: Callable[[], None]
    ) -> None:
        started()
        if self.may_end is not None:
            await self.may_end.wait()
        for handler in self.sockets.begin(self, connection, event):
            handler()
        async with self.told:
            self.told.notify_all()

    def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        self.log.append(("message", message))
        if message == "echo":
            ws.send(message)

    def websocket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        self.log.append(("close", code, reason, was_clean))

    def websocket_error(self, ws: WebSocket, error: Exception) -> None:
        self.log.append(("error", str(error)))

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait for events until it is so."""
        async with asyncio.timeout(10), self.told:
            await self.told.wait_for(met)

    async def wait_for(self, met: Callable[[], bool]) -> None:
        """Poll, for what no event tells."""
        async with asyncio.timeout(10):
            while not met():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.005)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def raw(self, **options: Any) -> RawSocket:
        """A client that does only what it is told to."""
        socket = await RawSocket.connect("127.0.0.1", self.port, "/", **options)
        self.raw_sockets.append(socket)
        return socket


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    socket_server = SocketServer(message_bytes_max=MESSAGE_BYTES_MAX, sweep=site.sweep)
    config = uvicorn.Config(
        site,
        port=0,
        lifespan="off",
        ws=upgrade_protocol(socket_server),
        ws_per_message_deflate=False,
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    site.server = server  # type: ignore[attr-defined]
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    site.port = server.servers[0].sockets[0].getsockname()[1]
    yield site
    for socket in site.raw_sockets:
        socket.transport.abort()
        await socket.over
    await server.shutdown()
    await site.wait_for(lambda: not server.server_state.connections)
    await asyncio.sleep(0)  # transports end in the turn after


async def opened(site: Site) -> ClientConnection:
    return await connect(site.url, compression=None)


# --- handshake -------------------------------------------------------------------------------


async def test_messages_go_both_ways(site: Site) -> None:
    async with await opened(site) as client:
        for message in ("text ä", b"bytes", "", "x" * 70_000):
            await client.send(message)
        await site.until(lambda: len(site.log) == 4)
        (server,) = site.sockets.get()
        for message in ("one", b"two", "", "x" * 1_000_000):
            server.send(message)
            assert await client.recv() == message
    await site.until(lambda: site.log[-1][0] == "close")
    assert [data for _, data, *_ in site.log[:4]] == ["text ä", b"bytes", "", "x" * 70_000]
    assert site.log[-1] == ("close", 1000, "", True)
    assert len(site.sweep) == 0


async def test_headers_and_the_subprotocol_are_the_objects(site: Site) -> None:
    site.headers = {"Sec-WebSocket-Protocol": "v2.chat", "X-Room": "blue", "Content-Length": "9"}
    async with connect(site.url, subprotocols=["v1.chat", "v2.chat"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "v2.chat"
        assert client.response is not None
        assert client.response.headers["X-Room"] == "blue"
        assert client.response.headers["X-Request-ID"] == "r1"
        assert "Content-Length" not in client.response.headers


async def test_compression_is_not_agreed_on(site: Site) -> None:
    async with connect(site.url, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_an_object_may_refuse_with_any_response(site: Site) -> None:
    site.fetch = lambda: Response("Expected a ticket", status=426, headers={"X-Why": "ticket"})
    with pytest.raises(InvalidStatus) as caught:
        await opened(site)
    response = caught.value.response
    assert (response.status_code, response.body) == (426, b"Expected a ticket")
    assert response.headers["X-Why"] == "ticket"


async def test_a_socket_that_no_object_accepted_is_an_error_before_the_handshake(
    site: Site,
) -> None:
    site.fetch = lambda: Response(status=101, web_socket=WebSocketPair().client)
    with pytest.raises((InvalidStatus, websockets.exceptions.InvalidMessage)):
        await opened(site)
    assert [getattr(error, "code", None) for error in site.failures] == ["websocket_not_accepted"]


async def test_a_client_that_leaves_during_the_handshake_is_closed(site: Site) -> None:
    pair = WebSocketPair()
    site.sockets.accept(pair.server)
    response = Response(status=101, web_socket=pair.client)

    class Gone:
        """As `UpgradeProtocol.take_over` of a connection that is gone."""

        def __call__(self, client: Any, headers: Any) -> None:
            client.check_free()
            client.abandon()
            raise ClientGone

    async def send(message: object) -> None:
        raise AssertionError(message)

    with pytest.raises(ClientGone):
        await answer_upgrade({"extensions": {"dosql.take_over": Gone()}}, send, response)
    await site.until(lambda: bool(site.log))
    assert site.log[0][:2] == ("close", 1006)


async def test_frames_before_the_end_of_the_handshake_are_refused(site: Site) -> None:
    """A proper client waits; to take them would mean to guess whose they are."""
    gate = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await site(scope, receive, send)

    site.server.config.loaded_app = slow  # type: ignore[attr-defined]
    connecting = asyncio.ensure_future(site.raw())
    connections: set[Any] = site.server.server_state.connections  # type: ignore[attr-defined]
    await site.wait_for(lambda: any(getattr(one, "handshake_initiated", 0) for one in connections))
    (protocol,) = connections
    protocol.data_received(masked(1, b"too early"))
    gate.set()
    socket = await connecting
    assert not socket.head.startswith(b"HTTP/1.1 101 ")
    assert isinstance(site.failures[0], ClientGone)


# --- closing ---------------------------------------------------------------------------------


async def test_the_clients_code_reaches_the_object_and_is_answered(site: Site) -> None:
    client = await opened(site)
    await client.close(4123, "bye")
    assert client.close_code == 4123
    await site.until(lambda: bool(site.log))
    assert site.log == [("close", 4123, "bye", True)]


async def test_a_close_without_code_is_1005(site: Site) -> None:
    socket = await site.raw()
    socket.transport.write(masked(8, b""))
    assert await socket.lost == 0, "answered by a Close frame without code"
    await site.until(lambda: bool(site.log))
    assert site.log == [("close", 1005, "", True)]


async def test_the_objects_code_reaches_the_client(site: Site) -> None:
    client = await opened(site)
    (server,) = site.sockets.get()
    server.send("last words")
    server.close(4001, "full")
    assert await client.recv() == "last words"
    with pytest.raises(ConnectionClosed):
        await client.recv()
    assert (client.close_code, client.close_reason) == (4001, "full")
    await site.until(lambda: bool(site.log))
    assert site.log == [("close", 4001, "", True)] or site.log == [("close", 4001, "full", True)]


async def test_a_lost_connection_is_1006(site: Site) -> None:
    socket = await site.raw()
    socket.transport.abort()
    await site.until(lambda: bool(site.log))
    assert site.log[0][:2] == ("close", 1006) and site.log[0][3] is False


async def test_an_end_of_the_stream_without_close_frame_is_1006(site: Site) -> None:
    socket = await site.raw()
    socket.transport.close()
    await site.until(lambda: bool(site.log))
    assert site.log[0][:2] == ("close", 1006)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02hi", 1002),
        (masked(1, b"\xff\xfe"), 1007),
        (masked(2, b"x" * (MESSAGE_BYTES_MAX + 1)), 1009),
        (masked(8, b"\x03"), 1002),
    ],
)
async def test_a_client_that_breaks_the_protocol_gets_the_code_for_it(
    site: Site, data: bytes, code: int
) -> None:
    socket = await site.raw()
    socket.transport.write(data)
    assert await socket.lost == code
    await site.until(lambda: len(site.log) == 2)
    assert site.log[0][0] == "error"
    assert site.log[1][:2] == ("close", code) and site.log[1][3] is False


async def test_a_client_that_does_not_answer_a_close_is_dropped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.socket_protocol.SOCKET_CLOSE_S_MAX", 0.05)
    socket = await site.raw()
    (server,) = site.sockets.get()
    server.close(4001, "go")
    await site.until(lambda: bool(site.log))
    assert site.log == [("close", 4001, "The client did not answer the Close frame.", False)]
    assert await socket.lost == 4001


async def test_a_shutdown_closes_with_1012_and_tells_no_object(site: Site) -> None:
    client = await opened(site)
    await site.server.shutdown()  # type: ignore[attr-defined]
    with pytest.raises(ConnectionClosed):
        await client.recv()
    assert client.close_code == 1012
    assert site.log == [] and len(site.sockets) == 0


# --- pings -----------------------------------------------------------------------------------


async def test_pings_are_answered_without_the_object(site: Site) -> None:
    async with await opened(site) as client:
        await (await client.ping(b"are you there"))
        assert site.log == []


async def test_the_server_pings_and_a_living_client_stays(site: Site) -> None:
    pinged = asyncio.Event()
    socket = await site.raw(
        on_message=lambda socket, opcode, payload: pinged.set() if opcode == 9 else None
    )
    for _ in range(3):
        pinged.clear()
        site.sweep.visit_all()
        await asyncio.wait_for(pinged.wait(), 5)
        socket.send("echo")  # behind the answer to the ping
        count = len(site.log)
        await site.until(lambda count=count: len(site.log) > count)  # type: ignore[misc]
    assert not socket.lost.done()


async def test_a_client_that_answers_nothing_is_dropped_after_one_interval(site: Site) -> None:
    socket = await site.raw(answers_pings=False)
    site.sweep.visit_all()
    assert not site.log
    site.sweep.visit_all()
    await site.until(lambda: bool(site.log))
    assert site.log[0][:2] == ("close", 1006)
    await socket.lost
    assert len(site.sweep) == 0


async def test_the_sweep_visits_every_socket_once_per_interval() -> None:
    class Visited:
        sweep_slice = 0
        count = 0

        def check(self) -> None:
            self.count += 1

    sweep = SocketSweep(slices=5)
    sockets = []
    for _ in range(7):
        sockets.append(Visited())
        sweep.add(sockets[-1])
        sweep.visit_slice()
    for socket in sockets:
        socket.count = 0
    sweep.visit_all()
    assert [socket.count for socket in sockets] == [1] * 7
    for socket in sockets:
        sweep.discard(socket)
        sweep.discard(socket)
    assert len(sweep) == 0


# --- bounds ----------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_closed_with_4008(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.socket_protocol.SOCKET_CLOSE_S_MAX", 0.05)
    slow = await site.raw()
    slow.transport.pause_reading()
    async with await opened(site) as fast:
        slow_server, fast_server = site.sockets.get()
        sent = 0
        while slow_server.ready_state == WebSocket.OPEN:
            for server in site.sockets.get():
                server.send("x" * 500_000)
            sent += 1
            assert len(await fast.recv()) == 500_000
            assert sent * 500_000 < SOCKET_OUTBOX_BYTES_MAX + 50_000_000
        await site.until(lambda: bool(site.log))
        assert site.log == [("close", 4008, "The client did not answer the Close frame.", False)]
        assert site.sockets.get() == [fast_server]


async def test_a_flood_of_messages_waits_in_the_network(site: Site) -> None:
    """The object is behind: no more is read than a few messages, and none is lost."""
    site.may_end = asyncio.Event()
    socket = await site.raw()
    count = 20_000
    for number in range(count):
        socket.send(f"{number:0100}")
    (server,) = site.sockets.get()
    protocol: Any = server.connection._transport
    await site.wait_for(lambda: protocol._paused)
    inbox: Any = server.connection._inbox
    assert len(inbox._running) + len(inbox._waiting) < 50
    # Else one that is about to begin would not have to wait behind those that do.
    await site.wait_for(lambda: not inbox._waiting and not inbox._starting)
    site.may_end.set()
    await site.until(lambda: len(site.log) == count)
    assert [int(data) for _, data in site.log] == list(range(count))


async def test_the_sweep_spares_a_client_whose_messages_we_do_not_read(site: Site) -> None:
    site.may_end = asyncio.Event()
    socket = await site.raw()
    for _ in range(2_000):
        socket.send("x" * 100)
    (server,) = site.sockets.get()
    protocol: Any = server.connection._transport
    await site.wait_for(lambda: protocol._paused)
    site.sweep.visit_all()
    site.sweep.visit_all()
    site.sweep.visit_all()
    site.may_end.set()
    await site.until(lambda: len(site.log) == 2_000)


async def test_nothing_of_the_request_stays_with_an_idle_socket(site: Site) -> None:
    before = len(asyncio.all_tasks())
    sockets = [await site.raw() for _ in range(10)]
    await site.wait_for(lambda: len(asyncio.all_tasks()) == before)
    assert len(site.sockets) == len(site.sweep) == len(sockets)
