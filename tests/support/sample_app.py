"""A program with two classes of objects, for the contract suite of the stubs.

``dosql serve --app tests.support.sample_app:app``; in a test: ``--app`` of a ServerProcess.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import msgspec

from dosql import App, DurableObject, Namespace, Request, Response
from dosql.errors import ConflictError, LimitError

app = App()


@dataclasses.dataclass
class Photo:
    taken: datetime
    content: bytes


class Point(msgspec.Struct):
    x: int
    y: int


class Base(DurableObject):
    """Not registered: a base of one that is."""

    def inherited(self) -> str:
        return "from the base"


@app.durable_object
class Sample(Base):
    """Its methods do one thing each that a stub must carry."""

    limit = 7
    """An attribute, not a method."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self._arrived: list[Any] = []
        self._opened = asyncio.Event()

    # --- state ------------------------------------------------------------------------------

    async def increment(self, by: int = 1) -> int:
        value = self.ctx.storage.kv.get("value", 0) + by
        self.ctx.storage.kv.put("value", value)
        return int(value)

    def value(self) -> int:
        return int(self.ctx.storage.kv.get("value", 0))

    # --- arguments and results ----------------------------------------------------------------

    def echo(self, value: Any) -> Any:
        return value

    def kinds(self, *values: Any, **named: Any) -> list[str]:
        """Type names, to see what arrived."""
        return [type(value).__name__ for value in (*values, *named.values())]

    def describe(self, title: str, /, size: int, *, colour: str = "red") -> str:
        return f"{title} {size} {colour}"

    def develop(self, photo: Photo) -> Photo:
        return Photo(photo.taken, photo.content[::-1])

    def mirrored(self, points: list[Point]) -> list[Point]:
        return [Point(-point.x, point.y) for point in points]

    def unsendable(self) -> object:
        return object()

    # --- errors -------------------------------------------------------------------------------

    def fail(self, text: str) -> None:
        raise ValueError(text)

    async def refuse(self) -> None:
        raise ConflictError("The room is full.", code="room_full")

    async def refuse_after_write(self) -> None:
        self.ctx.storage.kv.put("value", 99)
        raise LimitError("Too big.", code="too_big")

    # --- order --------------------------------------------------------------------------------

    async def arrive(self, number: int) -> None:
        """Notes its number when it begins, and ends the later the lower the number."""
        self._arrived.append(number)
        for _ in range(20 - number):
            await asyncio.sleep(0)

    def arrived(self) -> list[int]:
        return list(self._arrived)

    async def wait(self) -> str:
        await self._opened.wait()
        return "opened"

    def open(self) -> None:
        self._opened.set()

    # --- refused ------------------------------------------------------------------------------

    def _private(self) -> str:
        return "never"

    @property
    def size(self) -> int:
        return 3

    async def alarm(self, info: object) -> None: ...

    async def websocket_message(self, ws: object, message: str | bytes) -> None: ...

    # --- HTTP ---------------------------------------------------------------------------------

    async def fetch(self, request: Request) -> Response:
        match request.path:
            case "/echo":
                return await self._echoed(request)
            case "/status":
                return Response("as you wish", int(request.query["code"]))
            case "/empty":
                return Response(status=204)
            case "/method":
                return Response(headers={"x-method": request.method})
            case "/json-error":
                return Response.from_json({"error": "mine", "code": "mine", "requestId": "1"}, 409)
            case "/cookies":
                return Response(headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")])
            case "/bytes":
                return Response(bytes(range(256)), headers={"content-type": "image/png"})
            case "/stream":
                return Response(_pieces(), headers={"content-type": "text/event-stream"})
            case "/fail":
                raise ValueError("a secret of the object")
            case "/refuse":
                raise ConflictError("The room is full.", code="room_full")
            case _:
                return Response(f"no {request.path}", 404)

    async def _echoed(self, request: Request) -> Response:
        return Response.from_json(
            {
                "method": request.method,
                "path": request.path,
                "query": request.query_all,
                "header": request.headers.get("x-sample"),
                "body": await request.text(),
            },
            headers={"x-reply": "yes"},
        )


async def _pieces() -> AsyncIterator[bytes]:
    for number in range(3):
        await asyncio.sleep(0)
        yield b"%d\n" % number


@app.durable_object
class Caller(DurableObject):
    """Calls the objects of the other class from inside."""

    async def add_up(self, names: list[str]) -> int:
        samples: Namespace[Sample] = self.env.SAMPLE
        return sum([await samples.get_by_name(name).value() for name in names])

    async def id_of(self, name: str) -> str:
        return str(self.env.SAMPLE.id_from_name(name))

    async def pass_on_error(self, name: str) -> None:
        await self.env.SAMPLE.get_by_name(name).fail("deep down")
