"""A program for tests of reconnecting clients: a journal that numbers what it is told, once."""

from __future__ import annotations

from typing import Any

from dosql import App, DurableObject, ObjectState, Request, Response, WebSocket, WebSocketPair

app = App()


@app.durable_object
class Journal(DurableObject):
    """``/?after=7`` sends the entries behind number 7, then ``ready``; then each new one.

    An entry is ``{number} {writer} {count}``. ``{writer} {count}`` as a message adds one, unless
    the writer's ``count`` is there already: whoever is in doubt says it again.
    """

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec(
            "CREATE TABLE IF NOT EXISTS entries("
            "number INTEGER PRIMARY KEY AUTOINCREMENT, writer TEXT, count INTEGER, "
            "UNIQUE (writer, count))"
        )

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server)
        for entry in self._entries(int(request.query.get("after", "0"))):
            server.send(entry)
        server.send("ready")
        return Response(status=101, web_socket=client)

    async def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        assert isinstance(message, str)
        writer, count = message.split()
        added = self.sql.exec(
            "INSERT INTO entries(writer, count) SELECT ?1, ?2 WHERE NOT EXISTS "
            "(SELECT 1 FROM entries WHERE writer = ?1 AND count = ?2) RETURNING number",
            writer,
            int(count),
        ).to_list()
        for row in added:
            for each in self.ctx.get_websockets():
                each.send(f"{row['number']} {message}")

    async def entries(self) -> list[str]:
        """Everything, in order."""
        return self._entries(0)

    def _entries(self, after: int) -> list[str]:
        found = self.sql.exec("SELECT * FROM entries WHERE number > ? ORDER BY number", after)
        return [f"{row['number']} {row['writer']} {row['count']}" for row in found.to_list()]
