"""A message that meets a reset of its object: it begins in the next life, or its client knows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dosql import App, DurableObject, Request, Response, WebSocketPair
from dosql.errors import DosqlError, ObjectResetError, OverloadedError
from dosql.testing import Harness, harness
from tests.simulation.sabotage import VARIANTS


class Listener(DurableObject):
    """Notes what each of its lives hears."""

    lives: list[list[str]]

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.heard: list[str] = []
        self.lives = env.LIVES
        self.lives.append(self.heard)

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server)
        return Response(status=101, web_socket=client)

    async def websocket_message(self, ws: Any, message: str) -> None:
        self.heard.append(message)
        if message == "wait":
            await asyncio.Event().wait()
        ws.send(f"heard {message}")


def listener_app() -> tuple[App, list[list[str]]]:
    lives: list[list[str]] = []
    app = App(vars={"LIVES": lives})
    app.durable_object(Listener)
    return app, lives


async def send_and_reset(h: Harness, messages: list[str], error: DosqlError) -> Any:
    """The object is reset when the first message has the turn, and has not begun."""
    stub = h.env.LISTENER.get_by_name("a")
    socket = await h.connect(stub)
    resident = h.objects.resident(stub.id)
    assert resident is not None
    had_turn: list[bool] = []

    def reset() -> None:
        had_turn.append(resident.ground.turns.busy and resident.activation.stepping is None)
        resident.activation.reset(error)

    sending = [asyncio.ensure_future(socket.send(message)) for message in messages]
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, reset)
    await asyncio.gather(*sending)
    await h.clock.settle()
    assert had_turn == [True], "else this shows nothing"
    return socket


@pytest.mark.parametrize(
    "error", [ObjectResetError("forced"), OverloadedError("too long", code="section_timeout")]
)
async def test_a_message_that_had_its_turn_when_the_object_was_reset_begins_in_the_next_life(
    error: DosqlError,
) -> None:
    app, lives = listener_app()
    async with harness(app) as h:
        socket = await send_and_reset(h, ["a", "b", "c"], error)
        assert lives == [[], ["a", "b", "c"]]
        assert [await socket.receive() for _ in "abc"] == ["heard a", "heard b", "heard c"]
        assert socket.close_code is None


async def test_the_sabotage_of_the_simulation_is_what_this_is_about() -> None:
    app, lives = listener_app()
    with VARIANTS["message lost at a reset"]():
        async with harness(app) as h:
            await send_and_reset(h, ["a", "b", "c"], ObjectResetError("forced"))
            assert lives[-1] == ["b", "c"]


async def test_a_message_that_had_begun_is_not_repeated() -> None:
    """Its handler may have done half of its work."""
    app, lives = listener_app()
    async with harness(app) as h:
        stub = h.env.LISTENER.get_by_name("a")
        socket = await h.connect(stub)
        await socket.send("wait")
        await h.clock.settle()
        resident = h.objects.resident(stub.id)
        assert resident is not None
        resident.activation.reset(ObjectResetError("forced"))
        await socket.send("next")
        assert await socket.receive() == "heard next"
        assert lives == [["wait"], ["next"]]
