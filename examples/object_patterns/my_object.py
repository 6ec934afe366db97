"""MyDurableObject: the smallest use of the base class."""

from __future__ import annotations

from dosql import Request, Response
from dosql.patterns import BaseDurableObject


class MyDurableObject(BaseDurableObject):
    """``/increment`` and ``/value``."""

    counter = 0

    async def on_initialize(self) -> None:
        self.counter = await self.get("counter", 0)

    async def handle_request(self, request: Request) -> Response:
        match request.path:
            case "/increment":
                counter = self.counter + 1
                await self.put("counter", counter)
                self.counter = counter
                return self.json({"counter": counter})
            case "/value":
                return self.json({"counter": self.counter})
            case _:
                return self.error("Not found", 404)
