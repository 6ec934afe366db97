"""A program for tests and measurements of WebSockets: rooms that repeat what they are told."""

from __future__ import annotations

from typing import Any

from dosql import (
    App,
    DurableObject,
    ObjectState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    WebSocketRequestResponsePair,
)

app = App()
LIVES: dict[str, int] = {}
"""Constructor runs by object, for as long as the process lives."""


@app.durable_object
class Hall(DurableObject):
    """``/ws?name=ada`` joins. What it does with a message is in `websocket_message`."""

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        key = str(ctx.id)
        LIVES[key] = LIVES.get(key, 0) + 1
        self.names = {ws: ws.deserialize_attachment() for ws in ctx.get_websockets()}
        pong = '{"type":"pong","timestamp":"{timestamp}"}'
        pair = WebSocketRequestResponsePair('{"type":"ping"}', pong, template=True)
        ctx.set_websocket_auto_response(pair)

    async def fetch(self, request: Request) -> Response:
        if not request.is_websocket_upgrade:
            return Response("Expected a WebSocket", status=426)
        name = request.query.get("name", "")
        if name == "nobody":
            return Response("Who are you?", status=403)
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server, [name] if name else [])
        server.serialize_attachment(name)
        self.names[server] = name
        storage = self.ctx.storage.kv
        storage.put("joined", storage.get("joined", 0) + 1)
        after = request.query.get("after")
        if after is not None:
            for row in self._said(int(after)):
                server.send(f"{row['id']} {row['text']}")
        headers = {}
        if "chat.v2" in request.headers.get("sec-websocket-protocol", ""):
            headers["sec-websocket-protocol"] = "chat.v2"
        return Response(status=101, web_socket=client, headers=headers)

    async def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        if isinstance(message, bytes):
            ws.send(message)
            return
        word, _, rest = message.partition(" ")
        match word:
            case "echo":
                ws.send(rest)
            case "all":
                self._tell(rest)
            case "say":
                self._create()
                said = self.ctx.storage.sql.exec(
                    "INSERT INTO said(text) VALUES (?) RETURNING id", rest
                ).one()
                self._tell(f"{said['id']} {rest}")
            case "who":
                ws.send(f"{self.names[ws]} of {len(self.names)}, life {LIVES[str(self.ctx.id)]}")
            case "pinged":
                at = self.ctx.get_websocket_auto_response_timestamp(ws)
                ws.send("never" if at is None else "yes")
            case "close":
                ws.close(int(rest), "as you wish")
            case "fail":
                raise RuntimeError("on purpose")
            case "abort":
                self.ctx.abort("on purpose")

    async def websocket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        name = self.names.pop(ws, "?")
        self._tell(f"{name} left: {code} {reason} {was_clean}")

    async def respond(self, request: str, response: str) -> None:
        """A fixed automatic response, in place of the constructor's."""
        self.ctx.set_websocket_auto_response(WebSocketRequestResponsePair(request, response))

    async def count(self) -> int:
        """How many sockets are open."""
        return len(self.ctx.get_websockets())

    async def lives(self) -> int:
        """How often the constructor ran."""
        return LIVES[str(self.ctx.id)]

    def _tell(self, text: str) -> None:
        for ws in self.ctx.get_websockets():
            ws.send(text)

    def _create(self) -> None:
        self.ctx.storage.sql.exec(
            "CREATE TABLE IF NOT EXISTS said(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT)"
        )

    def _said(self, after: int) -> list[dict[str, Any]]:
        self._create()
        found = self.ctx.storage.sql.exec("SELECT id, text FROM said WHERE id > ?", after)
        return found.to_list()
