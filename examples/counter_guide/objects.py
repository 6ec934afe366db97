"""The two counters of the guide: one over WebSockets, one over RPC."""

from __future__ import annotations

import json

from dosql import DosqlError, DurableObject, Request, Response, WebSocket, WebSocketPair

MESSAGE_BYTES_MAX = 1_024


class Counter(DurableObject):
    """A number that all who are connected see change.

    The sockets are the runtime's to keep (``ctx.get_websockets()``), so the object may hibernate
    while they stay open; the number is read from storage, so nothing is lost when it does.
    """

    async def fetch(self, request: Request) -> Response:
        if request.path != "/ws":
            return Response("Not found", status=404)
        if not request.is_websocket_upgrade:
            headers = {"Upgrade": "websocket"}
            return Response("Expected Upgrade: websocket", status=426, headers=headers)
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server)
        server.send(update_of(self.value))
        return Response(None, status=101, web_socket=client)

    async def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        error = complaint_about(message)
        if error is not None:
            ws.send(json.dumps({"type": "error", "message": error}))
            return
        # One step, without an await: no increment is lost, and nobody hears of the new value
        # before it is on disk, because frames wait for the writes that came before them.
        value = self.value + 1
        self.ctx.storage.kv.put("value", value)
        self.broadcast(update_of(value))

    @property
    def value(self) -> int:
        """As stored; 0 before the first increment."""
        value: int = self.ctx.storage.kv.get("value", 0)
        return value

    def broadcast(self, text: str) -> None:
        """Send to everybody who is connected."""
        for ws in self.ctx.get_websockets():
            try:
                ws.send(text)
            except DosqlError:
                ws.close(1011, "It takes no more messages.")


class Counter2(DurableObject):
    """The same number without connections: its public methods are called from elsewhere."""

    async def increment(self) -> int:
        """Count one more; returns how many there are now."""
        value = await self.get_value() + 1
        await self.ctx.storage.put("value", value)
        return value

    async def get_value(self) -> int:
        """How many there are."""
        value: int = await self.ctx.storage.get("value") or 0
        return value


def update_of(value: int) -> str:
    """The frame that tells the value."""
    return json.dumps({"type": "update", "value": value})


def complaint_about(message: str | bytes) -> str | None:
    """What is wrong with a frame; None if it asks for an increment."""
    if isinstance(message, bytes) or len(message) > MESSAGE_BYTES_MAX:
        return f"Messages are text of at most {MESSAGE_BYTES_MAX} characters."
    try:
        data = json.loads(message)
    except (ValueError, RecursionError):
        return "The message is not JSON."
    if not isinstance(data, dict) or data.get("type") != "increment":
        return 'The only message is {"type": "increment"}.'
    return None
