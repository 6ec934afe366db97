"""Sockets of one object: acceptance, tags, attachments, order, bounds, and what survives a life."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from dosql.errors import (
    ConflictError,
    DosqlError,
    InvalidRequestError,
    LimitError,
    ObjectResetError,
    OverloadedError,
)
from dosql.limits import (
    ATTACHMENT_BYTES_MAX,
    SOCKET_OUTBOX_BYTES_MAX,
    SOCKET_OUTBOX_MESSAGES_MAX,
    SOCKET_READ_AHEAD_MAX,
)
from dosql.objects.auto_response import WebSocketRequestResponsePair
from dosql.objects.connections import Connection, SocketEvent
from dosql.objects.sockets import Sockets
from dosql.objects.websocket import WebSocket, WebSocketPair
from dosql.testing.sockets import MemorySocket, SocketClosed


class Clock:
    """Stands still at a known moment."""

    def now_ms(self) -> int:
        return 1_767_225_600_123

    def monotonic(self) -> float:
        return 0.0


class Room:
    """What a user's class looks like to its sockets."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        self.log.append(("message", message))

    def websocket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        self.log.append(("close", code, reason, was_clean))

    def websocket_error(self, ws: WebSocket, error: DosqlError) -> None:
        self.log.append(("error", error.code))


class Host:
    """Delivers at once, or when the test says so; its output gate can be held shut."""

    def __init__(self) -> None:
        self.room: object = Room()
        self.sockets = Sockets(self.deliver, Clock())
        self.sockets.activate(self.emit)
        self.held: list[Callable[[], None]] | None = None
        self.started: list[SocketEvent] = []
        self.starts: asyncio.Semaphore | None = None
        self.ends: asyncio.Event | None = None
        self.error: Exception | None = None
        self.resets = 0
        """How many more lives of the object are reset before an event begins in them."""

    async def deliver(
        self, connection: Connection, event: SocketEvent, started: Callable[[], None]
    ) -> None:
        if self.starts is not None:
            await self.starts.acquire()
        if self.error is not None:
            raise self.error
        if self.resets:
            self.resets -= 1
            raise ObjectResetError("reset")
        self.started.append(event)
        started()
        if self.ends is not None:
            await self.ends.wait()
        for handler in self.sockets.begin(self.room, connection, event):
            result = handler()
            if asyncio.iscoroutine(result):
                await result

    def emit(self, action: Callable[[], None]) -> None:
        if self.held is None:
            action()
        else:
            self.held.append(action)

    def connect(self, *tags: str) -> tuple[WebSocket, MemorySocket]:
        client, server = WebSocketPair()
        self.sockets.accept(server, tags)
        return server, MemorySocket(client)

    @property
    def log(self) -> list[tuple[Any, ...]]:
        assert isinstance(self.room, Room)
        return self.room.log


@pytest.fixture
async def host() -> Host:
    return Host()


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- messages --------------------------------------------------------------------------------


async def test_text_and_bytes_go_both_ways_in_order(host: Host) -> None:
    server, client = host.connect()
    await client.send("ä")
    await client.send(b"\x00")
    await settle()
    server.send("one")
    server.send(b"two")
    server.send(bytearray(b"three"))
    assert host.log == [("message", "ä"), ("message", b"\x00")]
    assert client.receive_nowait() == ["one", b"two", b"three"]


@pytest.mark.parametrize("message", [1, None, ["x"], "\ud800"])
async def test_only_text_and_bytes_can_be_sent(host: Host, message: Any) -> None:
    server, _ = host.connect()
    with pytest.raises(InvalidRequestError) as caught:
        server.send(message)
    assert caught.value.code == "invalid_message"


async def test_what_is_sent_waits_for_the_output_gate(host: Host) -> None:
    server, client = host.connect()
    host.held = []
    server.send("not durable yet")
    assert client.receive_nowait() == []
    for action in host.held:
        action()
    assert client.receive_nowait() == ["not durable yet"]


async def test_what_is_sent_before_the_handshake_is_over_comes_right_behind_it(host: Host) -> None:
    client, server = WebSocketPair()
    host.sockets.accept(server)
    server.send("welcome")
    server.close(4001, "the room is full")
    socket = MemorySocket(client)
    assert await socket.receive() == "welcome"
    with pytest.raises(SocketClosed, match="4001 the room is full"):
        await socket.receive()


async def test_a_message_starts_only_after_the_one_before_has_started(host: Host) -> None:
    host.starts = asyncio.Semaphore(0)
    _, client = host.connect()
    for number in range(3):
        await client.send(str(number))
    await settle()
    assert host.started == []
    host.starts.release()
    await settle()
    assert [event.data for event in host.started] == ["0"]  # type: ignore[union-attr]
    host.starts.release()
    host.starts.release()
    await settle()
    assert host.log == [("message", "0"), ("message", "1"), ("message", "2")]


async def test_messages_of_one_socket_may_run_at_the_same_time(host: Host) -> None:
    """As Cloudflare's: order is of their beginnings; handlers may interleave where they wait."""
    host.ends = asyncio.Event()
    _, client = host.connect()
    await client.send("a")
    await client.send("b")
    await settle()
    assert len(host.started) == 2 and host.log == []
    host.ends.set()
    await settle()
    assert host.log == [("message", "a"), ("message", "b")]


async def test_no_more_is_read_while_many_messages_of_a_socket_are_under_way(host: Host) -> None:
    host.ends = asyncio.Event()
    _, client = host.connect()
    for number in range(SOCKET_READ_AHEAD_MAX + 5):
        await client.send(str(number))
    await settle()
    assert len(host.started) == SOCKET_READ_AHEAD_MAX
    host.ends.set()
    await settle()
    assert [data for _, data in host.log] == [str(n) for n in range(SOCKET_READ_AHEAD_MAX + 5)]


async def test_a_message_that_meets_a_reset_begins_in_the_next_life_before_those_behind_it(
    host: Host,
) -> None:
    host.resets = 5
    _, client = host.connect()
    await client.send("a")
    await client.send("b")
    await settle()
    assert host.log == [("message", "a"), ("message", "b")]
    assert client.close_code is None


async def test_an_object_that_is_reset_at_every_start_is_not_woken_for_ever(host: Host) -> None:
    host.resets = 1_000
    _, client = host.connect()
    await client.send("a")
    await settle()
    assert client.close_code == 1011
    assert host.resets > 900


async def test_a_message_of_a_socket_that_the_host_has_ended_wakes_no_further_life(
    host: Host,
) -> None:
    host.starts = asyncio.Semaphore(0)
    _, client = host.connect()
    await client.send("a")
    await settle()
    host.sockets.close_all(1012, "restart")
    host.resets = 1
    host.starts.release()
    host.starts.release()
    await settle()
    assert host.log == [] and client.close_code == 1012


@pytest.mark.parametrize(
    ("error", "code"), [(OverloadedError("busy"), 1013), (RuntimeError("a bug"), 1011)]
)
async def test_after_a_message_that_was_lost_the_socket_is_closed(
    host: Host, error: Exception, code: int
) -> None:
    """Else the client would believe that the object has it, and that the next came behind it."""
    host.starts = asyncio.Semaphore(0)
    _, client = host.connect()
    await client.send("lost")
    await client.send("must not run either")
    host.error = error
    host.starts.release()
    await settle()
    host.error = None
    for _ in range(5):
        host.starts.release()
    await settle()
    assert client.close_code == code
    assert [entry[0] for entry in host.log] == ["close"]
    assert host.sockets.get() == []


# --- acceptance, tags ------------------------------------------------------------------------


async def test_sockets_are_found_by_their_tags(host: Host) -> None:
    first, _ = host.connect("red", "big", "red")
    second, client = host.connect("red")
    assert host.sockets.get() == [first, second]
    assert host.sockets.get("red") == [first, second]
    assert host.sockets.get("big") == [first]
    assert host.sockets.get("blue") == []
    assert host.sockets.tags(first) == ["red", "big"] == list(first.tags)
    await client.close()
    await settle()
    assert host.sockets.get("red") == [first]


@pytest.mark.parametrize("tags", [[str(n) for n in range(11)], ["x" * 257], [1], "text"])
async def test_tags_have_limits(host: Host, tags: Any) -> None:
    _, server = WebSocketPair()
    with pytest.raises(InvalidRequestError) as caught:
        host.sockets.accept(server, tags)
    assert caught.value.code == "invalid_tags"
    assert len(host.sockets) == 0


async def test_ten_tags_of_256_characters_are_allowed(host: Host) -> None:
    tags = [f"{number}".ljust(256, "ü") for number in range(10)]
    server, _ = host.connect(*tags)
    assert host.sockets.tags(server) == tags


async def test_a_socket_is_accepted_once(host: Host) -> None:
    server, _ = host.connect()
    for again in (lambda: host.sockets.accept(server), server.accept):
        with pytest.raises(ConflictError) as caught:
            again()
        assert caught.value.code == "websocket_already_accepted"


async def test_there_is_a_limit_of_sockets(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dosql.objects.sockets.SOCKETS_MAX", 2)
    host.connect()
    _, client = host.connect()
    with pytest.raises(LimitError) as caught:
        host.connect()
    assert caught.value.code == "too_many_websockets"
    await client.close()
    await settle()
    host.connect()


async def test_only_the_servers_end_can_be_accepted(host: Host) -> None:
    client, _ = WebSocketPair()
    with pytest.raises(InvalidRequestError) as caught:
        host.sockets.accept(client)
    assert caught.value.code == "invalid_websocket"


async def test_a_socket_that_nobody_accepted_can_neither_be_sent_to_nor_connected() -> None:
    client, server = WebSocketPair()
    for use in (lambda: server.send("x"), server.close, lambda: MemorySocket(client)):
        with pytest.raises(ConflictError) as caught:
            use()
        assert caught.value.code == "websocket_not_accepted"


async def test_tags_of_a_socket_of_another_object_are_refused(host: Host) -> None:
    stranger, _ = Host().connect("tag")
    with pytest.raises(InvalidRequestError) as caught:
        host.sockets.tags(stranger)
    assert caught.value.code == "invalid_websocket"


# --- closing ---------------------------------------------------------------------------------


async def test_a_clean_close_reaches_the_handler_with_the_clients_code(host: Host) -> None:
    server, client = host.connect()
    host.starts = asyncio.Semaphore(0)
    await client.send("last")
    await client.close(4000, "bye")
    await settle()
    assert server.ready_state == WebSocket.OPEN, "the object has not been told yet"
    server.send("dropped: nobody is there any more")
    host.starts.release()
    host.starts.release()
    await settle()
    assert host.log == [("message", "last"), ("close", 4000, "bye", True)]
    assert server.ready_state == WebSocket.CLOSED
    assert host.sockets.get() == []


async def test_a_lost_connection_is_an_unclean_1006(host: Host) -> None:
    _, client = host.connect()
    await client.vanish()
    await settle()
    text = "WebSocket disconnected without sending Close frame."
    assert host.log == [("close", 1006, text, False)]


async def test_the_close_handler_does_not_find_its_own_socket_among_the_open_ones(
    host: Host,
) -> None:
    """So that it can tell the others with a plain loop."""
    found: list[int] = []

    class Counting(Room):
        def websocket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
            found.append(len(host.sockets.get()))
            assert ws.deserialize_attachment() == "who"

    host.room = Counting()
    server, client = host.connect()
    server.serialize_attachment("who")
    host.connect()
    await client.close()
    await settle()
    assert found == [1]


async def test_sending_to_a_closed_socket_is_an_error(host: Host) -> None:
    server, client = host.connect()
    server.close(4002, "enough")
    assert server.ready_state == WebSocket.CLOSING
    assert host.sockets.get() == []
    with pytest.raises(ConflictError) as caught:
        server.send("x")
    assert caught.value.code == "websocket_closed"
    server.close(4003, "again")
    await settle()
    assert (client.close_code, client.close_reason) == (4002, "enough")
    assert host.log == [("close", 4002, "enough", True)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
async def test_codes_that_may_not_be_sent_are_refused(host: Host, code: int) -> None:
    server, _ = host.connect()
    with pytest.raises(InvalidRequestError) as caught:
        server.close(code)
    assert caught.value.code == "invalid_close"


async def test_a_reason_has_at_most_123_bytes(host: Host) -> None:
    server, client = host.connect()
    with pytest.raises(InvalidRequestError):
        server.close(1000, "ä" * 62)
    server.close(1000, "ä" * 61)
    assert client.close_reason == "ä" * 61


async def test_a_protocol_error_is_told_before_the_close(host: Host) -> None:
    server, _ = host.connect()
    server.connection.failed(InvalidRequestError("bad frame", code="websocket_protocol_error"))
    server.connection.closed(1002, "bad frame", False)
    await settle()
    assert host.log == [
        ("error", "websocket_protocol_error"),
        ("close", 1002, "bad frame", False),
    ]


async def test_handlers_may_be_missing(host: Host) -> None:
    host.room = object()
    _, client = host.connect()
    await client.send("x")
    await client.close()
    await settle()
    assert len(host.started) == 2 and len(host.sockets) == 0


async def test_the_host_closes_all_sockets_without_telling_the_object(host: Host) -> None:
    clients = [host.connect("t")[1] for _ in range(3)]
    host.sockets.close_all(1011, "The object failed.")
    await settle()
    assert [client.close_code for client in clients] == [1011] * 3
    assert host.log == [] and len(host.sockets) == 0 and host.sockets.get("t") == []


async def test_a_socket_whose_client_never_came_is_closed(host: Host) -> None:
    """The object accepted it, and then its fetch failed."""
    client, server = WebSocketPair()
    host.sockets.accept(server)
    del client
    gc.collect()
    await settle()
    assert [entry[:2] for entry in host.log] == [("close", 1006)]
    assert len(host.sockets) == 0


# --- slow readers ----------------------------------------------------------------------------


async def test_a_slow_reader_is_closed_with_4008_and_nobody_else(host: Host) -> None:
    slow_server, slow = host.connect()
    fast_server, fast = host.connect()
    slow.stop_reading()
    chunk = "x" * (SOCKET_OUTBOX_BYTES_MAX // 4)
    sent = 0
    while slow_server.ready_state == WebSocket.OPEN:
        for server in host.sockets.get():
            server.send(chunk)
        sent += 1
        assert sent < 10, "the queue has no bound"
    assert host.sockets.get() == [fast_server]
    assert len(fast.receive_nowait()) == sent
    slow.read_on()
    await settle()
    assert slow.close_code == 4008
    assert len(slow.receive_nowait()) == sent - 1, "what had been taken is still sent"


async def test_many_small_messages_are_bounded_too(host: Host) -> None:
    server, client = host.connect()
    client.stop_reading()
    for _ in range(SOCKET_OUTBOX_MESSAGES_MAX + 2):
        if server.ready_state != WebSocket.OPEN:
            break
        server.send("x")
    assert server.ready_state == WebSocket.CLOSING


async def test_one_message_may_be_larger_than_the_queue(host: Host) -> None:
    server, client = host.connect()
    client.stop_reading()
    server.send(b"x" * (SOCKET_OUTBOX_BYTES_MAX + 1))
    assert server.ready_state == WebSocket.OPEN


# --- attachments and hibernation -------------------------------------------------------------


async def test_an_attachment_is_a_copy(host: Host) -> None:
    server, _ = host.connect()
    assert server.deserialize_attachment() is None
    value: dict[str, list[int]] = {"seen": [1]}
    server.serialize_attachment(value)
    value["seen"].append(2)
    assert server.deserialize_attachment() == {"seen": [1]}
    server.deserialize_attachment()["seen"].clear()
    assert server.deserialize_attachment() == {"seen": [1]}


async def test_an_attachment_has_a_limit(host: Host) -> None:
    server, _ = host.connect()
    server.serialize_attachment(b"x" * (ATTACHMENT_BYTES_MAX - 10))
    with pytest.raises(LimitError) as caught:
        server.serialize_attachment(b"x" * ATTACHMENT_BYTES_MAX)
    assert caught.value.code == "attachment_too_large"
    assert len(server.deserialize_attachment()) == ATTACHMENT_BYTES_MAX - 10, "the one before stays"


async def test_tags_and_attachments_survive_hibernation(host: Host) -> None:
    server, client = host.connect("tag")
    server.serialize_attachment({"name": "ann"})
    host.sockets.deactivate()
    host.room = Room()
    host.sockets.activate(host.emit)
    (woken,) = host.sockets.get("tag")
    assert woken is not server and host.sockets.get() == [woken]
    assert woken.deserialize_attachment() == {"name": "ann"}
    await client.send("hello again")
    await settle()
    woken.send("and you")
    assert host.log == [("message", "hello again")]
    assert client.receive_nowait() == ["and you"]


async def test_code_of_an_earlier_life_cannot_send(host: Host) -> None:
    server, client = host.connect()
    host.sockets.deactivate()
    host.sockets.activate(host.emit)
    with pytest.raises(ConflictError) as caught:
        server.send("from beyond")
    assert caught.value.code == "websocket_closed"
    assert client.receive_nowait() == []


async def test_a_socket_takes_no_attributes() -> None:
    """They would be gone after the first hibernation; that is what attachments are for."""
    _, server = WebSocketPair()
    with pytest.raises(AttributeError):
        server.session = 1


# --- automatic responses ---------------------------------------------------------------------


async def test_an_automatic_response_reaches_no_handler_and_no_gate(host: Host) -> None:
    server, client = host.connect()
    host.sockets.set_auto_response(WebSocketRequestResponsePair("ping", "pong"))
    assert host.sockets.auto_response_timestamp(server) is None
    host.sockets.deactivate()
    await client.send("ping")
    await client.send("ping")
    assert client.receive_nowait() == ["pong", "pong"]
    assert host.started == []
    assert host.sockets.auto_response_timestamp(server) == Clock().now_ms()


@pytest.mark.parametrize("message", ["Ping", "ping ", b"ping", ""])
async def test_only_the_exact_text_is_answered_automatically(
    host: Host, message: str | bytes
) -> None:
    _, client = host.connect()
    host.sockets.set_auto_response(WebSocketRequestResponsePair("ping", "pong"))
    await client.send(message)
    await settle()
    assert client.receive_nowait() == []
    assert host.log == [("message", message)]


async def test_a_template_has_the_time_of_the_answer(host: Host) -> None:
    _, client = host.connect()
    response = '{"type":"pong","timestamp":"{timestamp}"}'
    pair = WebSocketRequestResponsePair('{"type":"ping"}', response, template=True)
    host.sockets.set_auto_response(pair)
    await client.send('{"type":"ping"}')
    assert client.receive_nowait() == ['{"type":"pong","timestamp":"2026-01-01T00:00:00.123Z"}']


async def test_without_template_the_response_is_sent_as_it_stands(host: Host) -> None:
    _, client = host.connect()
    host.sockets.set_auto_response(WebSocketRequestResponsePair("t", "{timestamp}"))
    await client.send("t")
    assert client.receive_nowait() == ["{timestamp}"]


async def test_the_automatic_response_can_be_cleared(host: Host) -> None:
    _, client = host.connect()
    pair = WebSocketRequestResponsePair("ping", "pong")
    host.sockets.set_auto_response(pair)
    assert host.sockets.auto_response is pair
    host.sockets.set_auto_response()
    await client.send("ping")
    await settle()
    assert host.log == [("message", "ping")]


@pytest.mark.parametrize("sides", [("x" * 2049, "y"), ("x", "ä" * 1025)])
async def test_each_side_of_the_pair_has_a_limit(sides: tuple[str, str]) -> None:
    with pytest.raises(LimitError) as caught:
        WebSocketRequestResponsePair(*sides)
    assert caught.value.code == "auto_response_too_large"


async def test_somebody_who_pings_and_never_reads_is_cut_off(host: Host) -> None:
    server, client = host.connect()
    host.sockets.set_auto_response(WebSocketRequestResponsePair("p", "x" * 2048))
    client.stop_reading()
    for _ in range(SOCKET_OUTBOX_BYTES_MAX // 2048 + 10):
        server.connection.received("p")
    assert server.ready_state == WebSocket.CLOSING


# --- the standard interface ------------------------------------------------------------------


async def test_the_standard_interface_calls_listeners_and_pins_the_object(host: Host) -> None:
    client, server = WebSocketPair()
    server.accept()
    events: list[SocketEvent] = []
    server.add_event_listener("message", events.append)

    async def closed(event: SocketEvent) -> None:
        events.append(event)

    server.add_event_listener("close", closed)
    server.send("before the response")
    host.sockets.adopt(client)
    socket = MemorySocket(client)
    assert socket.receive_nowait() == ["before the response"]
    assert host.sockets.pins and host.sockets.get() == []
    await socket.send("hello")
    await socket.close(1000, "done")
    await settle()
    assert [type(event).__name__ for event in events] == ["MessageEvent", "CloseEvent"]
    assert host.log == [] and not host.sockets.pins


async def test_without_its_object_in_memory_a_standard_socket_is_closed(host: Host) -> None:
    client, server = WebSocketPair()
    server.accept()
    host.sockets.adopt(client)
    socket = MemorySocket(client)
    host.sockets.deactivate()
    assert socket.close_code == 1011


async def test_listeners_do_not_go_with_hibernation(host: Host) -> None:
    server, _ = host.connect()
    with pytest.raises(InvalidRequestError, match="websocket_message"):
        server.add_event_listener("message", print)
    with pytest.raises(InvalidRequestError, match="message, close and error"):
        WebSocketPair().server.add_event_listener("open", print)
