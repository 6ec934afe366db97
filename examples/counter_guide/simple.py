"""The guide's simple pattern in one file: no middleware, no variables, the browsers' socket API.

``dosql serve --app examples.counter_guide.simple:app``. Start like this, and change to ``app.py``
when there is more than one route: here every handler finds its stub itself, and a socket accepted
by its own ``accept()`` keeps the object in memory for as long as it is open.
"""

from __future__ import annotations

import json
from typing import Any

from dosql import (
    App,
    DosqlError,
    DurableObject,
    FetchContext,
    MessageEvent,
    ObjectState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
)

app = App()


@app.durable_object
class Counter(DurableObject):
    """Its sessions are in memory, its value is not."""

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        self.value: int = ctx.storage.kv.get("value", 0)
        self.sessions: set[WebSocket] = set()

    async def fetch(self, request: Request) -> Response:
        if request.path != "/ws":
            return Response("Not found", status=404)
        if not request.is_websocket_upgrade:
            headers = {"Upgrade": "websocket"}
            return Response("Expected Upgrade: websocket", status=426, headers=headers)
        client, server = WebSocketPair()
        server.accept()
        self.sessions.add(server)
        server.send(json.dumps({"type": "update", "value": self.value}))

        def on_message(event: MessageEvent) -> None:
            try:
                data = json.loads(event.data)
            except (ValueError, RecursionError):
                data = None
            if isinstance(data, dict) and data.get("type") == "increment":
                self.ctx.storage.kv.put("value", self.value + 1)
                self.value += 1
                self.broadcast({"type": "update", "value": self.value})
            else:
                message = 'The only message is {"type": "increment"}.'
                server.send(json.dumps({"type": "error", "message": message}))

        server.add_event_listener("message", on_message)
        server.add_event_listener("close", lambda event: self.sessions.discard(server))
        server.add_event_listener("error", lambda event: self.sessions.discard(server))
        return Response(None, status=101, web_socket=client)

    def broadcast(self, message: dict[str, Any]) -> None:
        """Send to everybody; a session whose send fails is removed."""
        for session in list(self.sessions):
            try:
                session.send(json.dumps(message))
            except DosqlError:
                self.sessions.discard(session)


@app.fetch
async def fetch(request: Request, env: Any, ctx: FetchContext) -> Response:
    if request.path == "/api/counter/ws":
        counter = env.COUNTER.get_by_name("default")
        response: Response = await counter.fetch(request.replace(path="/ws"))
        return response
    return Response("Not found", status=404)
