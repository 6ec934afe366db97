"""Counter: answers with the number as plain text."""

from __future__ import annotations

from typing import Any

from dosql import DurableObject, ObjectState, Request, Response


class Counter(DurableObject):
    """``/increment``, ``/decrement``, ``/value``."""

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        self.value = 0
        # No event comes in before the value is there.
        ctx.block_concurrency_while(self.load)

    async def load(self) -> None:
        """Take the stored value into memory."""
        self.value = await self.ctx.storage.get("value") or 0

    async def fetch(self, request: Request) -> Response:
        match request.path:
            case "/increment":
                return await self.add(1)
            case "/decrement":
                return await self.add(-1)
            case "/value":
                return Response(str(self.value))
            case _:
                return Response("Not Found", status=404)

    async def add(self, amount: int) -> Response:
        """Change the value on disk, then in memory."""
        value = self.value + amount
        written = self.ctx.storage.put("value", value)
        self.value = value  # in the same step as the put: nobody comes in between
        await written
        return Response(str(value))
