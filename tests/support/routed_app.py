"""A program for the tests of the server's routes: objects that show what reached them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dosql import (
    App,
    DurableObject,
    Env,
    Namespace,
    NotFoundError,
    Request,
    Response,
    WebSocketPair,
)


class Bindings(Env):
    ECHO: Namespace[Echo]
    GREETING: str


app = App(Bindings, vars={"GREETING": "hello"})
finished: list[str] = []
"""What went on after its reply."""


@app.durable_object
class Echo(DurableObject):
    """Answers with the request itself, but for a few paths."""

    ended = 0
    """Streams that were ended, by whomever."""

    async def fetch(self, request: Request) -> Response:
        if request.is_websocket_upgrade:
            if request.path == "/refused":
                return Response("not here", 403, {"x-reason": "closed"})
            client, server = WebSocketPair()
            if request.path == "/unaccepted":
                return Response(None, 101, web_socket=client)
            self.ctx.accept_websocket(server)
            server.send(f"welcome {request.path} {request.query}")
            return Response(None, 101, {"x-from": "object"}, web_socket=client)
        match request.path:
            case "/boom":
                raise ValueError("a secret")
            case "/sql-error":
                self.ctx.storage.sql.exec("SELECT * FROM secret_table")
            case "/empty":
                self.one_of_none()
            case "/key":
                self.ctx.storage.kv.put("secret" * 1_000, 1)
            case "/forbidden":
                self.ctx.storage.sql.exec("ATTACH 'secret' AS other")
            case "/teapot":
                raise NotFoundError("There is no coffee.", code="no_coffee")
            case "/argument":
                await self.env.ECHO.get_by_name("other").add(request.query["a"])
            case "/invalid":
                return Response.from_json(await request.json(int))
            case "/stream":
                return Response(self._ticks(), headers={"content-type": "text/event-stream"})
            case "/words":
                return Response(self._words())
            case "/broken-stream":
                return Response(self._broken())
            case "/ended":
                return Response(str(Echo.ended))
            case "/status":
                return Response(None, int(request.query["code"]), {"x-own": "1"})
            case "/cookies":
                return Response("", headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")])
            case "/page":
                page = {"content-type": "text/html", "content-security-policy": "default-src *"}
                return Response("<p>", headers={**page, "x-request-id": "mine"})
            case "/upgrade":
                client, server = WebSocketPair()
                self.ctx.accept_websocket(server)
                return Response(None, 101, web_socket=client)
            case "/nonsense":
                return "text"  # type: ignore[return-value]
        return Response.from_json(await shown(request) | {"name": self.ctx.id.name})

    async def _ticks(self) -> AsyncIterator[str]:
        try:
            while True:
                yield "data: tick\n\n"
                await asyncio.sleep(0.01)
        finally:
            Echo.ended += 1

    async def _words(self) -> AsyncIterator[bytes | str]:
        yield "one "
        yield b""
        yield b"two"

    async def _broken(self) -> AsyncIterator[str]:
        yield "one "
        raise RuntimeError("the stream broke")

    async def websocket_message(self, ws: Any, message: str | bytes) -> None:
        ws.send(message)

    def add(self, a: int, b: int = 2) -> int:
        return a + b

    async def count(self) -> int:
        value = self.ctx.storage.kv.get("count", 0) + 1
        self.ctx.storage.kv.put("count", value)
        return int(value)

    def one_of_none(self) -> object:
        return self.ctx.storage.sql.exec("SELECT 1 WHERE 0").one()

    def fail(self) -> None:
        raise ValueError("too small")


@app.durable_object(name="mute")
class Silent(DurableObject):
    """Has no fetch handler."""


async def shown(request: Request) -> dict[str, Any]:
    """A request as JSON."""
    return {
        "method": request.method,
        "url": request.url,
        "path": request.path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": await request.text(),
    }


@app.fetch
async def fetch(request: Request, env: Bindings, ctx: Any) -> Response:
    """The public door: `/echo/{name}/...` is an object, the rest shows the request."""
    _, first, *rest = request.path.split("/")
    match first:
        case "echo":
            stub = env.ECHO.get_by_name(rest[0])
            return await stub.fetch(request.replace(path="/".join(["", *rest[1:]])))
        case "crash":
            raise KeyError("a secret")
        case "later":

            async def later() -> None:
                await asyncio.sleep(0.05)
                await env.ECHO.get_by_name("later").count()

            ctx.wait_until(later())
            return Response(ctx.request_id)
        case "missing":
            return Response(str(env.NOWHERE))  # type: ignore[attr-defined]
        case "none":
            return None  # type: ignore[return-value]
    return Response.from_json(await shown(request) | {"greeting": env.GREETING})
