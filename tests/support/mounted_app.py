"""A program whose public door is an application of Litestar's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, WebSocket, asgi, get, websocket

from dosql import App, DurableObject, Request, Response, WebSocketPair

app = App()
state = {"started": False}


@app.durable_object
class Visits(DurableObject):
    """Counts."""

    def add(self) -> int:
        value = self.ctx.storage.kv.get("visits", 0) + 1
        self.ctx.storage.kv.put("visits", value)
        return int(value)

    async def fetch(self, request: Request) -> Response:
        if request.is_websocket_upgrade:
            client, server = WebSocketPair()
            self.ctx.accept_websocket(server)
            server.send(request.path)
            return Response(None, 101, web_socket=client)
        return Response(f"{self.ctx.id.name} {request.path}")


@get("/visits/{page:str}")
async def visits(page: str) -> dict[str, Any]:
    """Calls an object."""
    count = await app.env.VISITS.get_by_name(page).add()
    return {"visits": count, "started": state["started"]}


@websocket("/echo")
async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    """A WebSocket of the application's own."""
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


@asgi("/raw", is_mount=True, copy_scope=False)
async def raw(scope: Any, receive: Any, send: Any) -> None:
    """Passes the request on to an object, under another path."""
    await app.env.VISITS.get_by_name("raw").forward(scope, receive, send, path="/inner path")


@asynccontextmanager
async def lifespan(_: Litestar) -> AsyncIterator[None]:
    """Shows that the server starts and stops what is mounted."""
    state["started"] = True
    yield
    print("the application stopped", flush=True)


app.mount(Litestar([visits, echo, raw], lifespan=[lifespan], openapi_config=None))
