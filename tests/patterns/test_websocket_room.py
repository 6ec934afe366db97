"""WebSocketRoom where a server is too slow to look: bounds, memory lost, frames in a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dosql import App, InvalidRequestError, OverloadedError
from dosql.patterns import WebSocketRoom
from dosql.testing import Harness, MemorySocket, SimpleState, harness

app = App()


@app.durable_object
class SmallRoom(WebSocketRoom):
    connections_max = 3
    history_max = 2
    message_bytes_max = 100


@app.durable_object
class LooseRoom(WebSocketRoom):
    history_max = 0

    async def handle_message(self, ws: Any, message: str) -> None:
        """Parses for itself, and fails at what it did not foresee."""
        self.broadcast({"type": "sum", "value": sum(json.loads(message))})


def frames(socket: MemorySocket) -> list[Any]:
    return [json.loads(frame) for frame in socket.receive_nowait()]


def kinds(socket: MemorySocket) -> list[str]:
    return [frame["type"] for frame in frames(socket)]


async def say(h: Harness, socket: MemorySocket, payload: object) -> None:
    await socket.send(json.dumps({"type": "message", "payload": payload}, ensure_ascii=False))
    await h.clock.settle()


async def test_the_history_keeps_the_newest_and_says_where_it_begins() -> None:
    async with harness(app) as h:
        room = h.env.SMALL_ROOM.get_by_name("a")
        ada = await h.connect(room, "/?userId=ada")
        for number in range(1, 6):
            await say(h, ada, number)
        ada.receive_nowait()
        late = await h.connect(room, "/?userId=bob&after=1")
        await h.clock.settle()
        welcome, *missed = [frame for frame in frames(late) if frame["type"] != "user_joined"]
        assert (welcome["first"], welcome["sequence"]) == (4, 1)
        assert [frame["sequence"] for frame in missed] == [4, 5]


async def test_after_beyond_the_end_is_the_end() -> None:
    """As when the room was restored to an earlier moment."""
    async with harness(app) as h:
        room = h.env.SMALL_ROOM.get_by_name("a")
        ada = await h.connect(room, "/?userId=ada&after=99")
        await say(h, ada, 1)
        welcome, message = frames(ada)
        assert (welcome["sequence"], message["sequence"]) == (0, 1)


async def test_a_full_room_lets_nobody_in() -> None:
    async with harness(app) as h:
        room = h.env.SMALL_ROOM.get_by_name("a")
        inside = [await h.connect(room, f"/?userId=u{number}") for number in range(3)]
        with pytest.raises(OverloadedError):
            await h.connect(room, "/?userId=u3")
        await inside[0].close()
        await h.clock.settle()
        await h.connect(room, "/?userId=u3")


async def test_what_a_subclass_parses_itself_and_what_it_does_not_foresee() -> None:
    async with harness(app) as h:
        ada = await h.connect(h.env.LOOSE_ROOM.get_by_name("a"), "/?userId=ada")
        for message in ("[1, 2]", "{", '["a"]', "[3]"):
            await ada.send(message)
            await h.clock.settle()
        _, *answers = frames(ada)
        assert [answer.get("code", answer.get("value")) for answer in answers] == [
            3,
            "invalid_json",
            "internal_error",
            3,
        ]
        assert "TypeError" not in str(answers)


async def test_messages_too_long_are_refused() -> None:
    async with harness(app) as h:
        ada = await h.connect(h.env.SMALL_ROOM.get_by_name("a"), "/?userId=ada")
        await say(h, ada, "x" * 100)
        await say(h, ada, "é" * 30)
        assert kinds(ada) == ["welcome", "error", "message"]


async def test_nobody_hears_a_message_before_it_is_durable_nor_after_it_was_lost() -> None:
    async with harness(app) as h:
        room = h.env.SMALL_ROOM.get_by_name("a")
        ada = await h.connect(room, "/?userId=ada")
        await say(h, ada, "kept")
        h.hold_writes()
        await say(h, ada, "lost")
        assert kinds(ada) == ["welcome", "message"]
        await h.crash()
        again = await h.connect(h.env.SMALL_ROOM.get_by_name("a"), "/?userId=ada&after=0")
        await h.clock.settle()
        _, *heard = frames(again)
        assert [frame["payload"] for frame in heard] == ["kept"]


async def test_a_room_knows_who_is_there_after_it_slept() -> None:
    async with harness(app) as h:
        room = h.env.SMALL_ROOM.get_by_name("a")
        ada = await h.connect(room, "/?userId=ada")
        bob = await h.connect(room, "/?userId=bob")
        await h.clock.settle()
        ada.receive_nowait()
        await h.hibernate(room)
        assert h.instance_of(room) is None
        await bob.vanish()
        await h.clock.settle()
        left = frames(ada)[0]
        assert (left["type"], left["userId"]) == ("user_left", "bob")


async def test_a_room_in_which_nobody_spoke_stores_nothing() -> None:
    async with harness(app) as h:
        ada = await h.connect(h.env.SMALL_ROOM.get_by_name("a"), "/?userId=ada")
        await ada.close()
        await h.clock.settle()
        await h.hibernate()
        assert h.list_ids("small-room") == []


async def test_messages_that_are_no_objects_are_not_parsed() -> None:
    room = SmallRoom(SimpleState(), {})
    for wrong in ("[]", "1", "null", "NaN", "{", '{"a": "\\ud800"}', "[" * 100_000):
        with pytest.raises(InvalidRequestError):
            room.parse_message(wrong)
