"""ChatRoom: who is in it hears who comes, who goes, and what is said.

- Nothing about a session is only in memory: its name is attached to the socket, which stays open
  when the room hibernates.
- A message is stored before anybody hears it, with a ``sequence`` without gaps. Who was away
  connects with ``?after=<last sequence>`` and hears what was said meanwhile.
- A session leaves once, whatever ended it.
"""

from __future__ import annotations

import json
from typing import Any

from dosql import (
    DosqlError,
    DurableObject,
    ObjectState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
)

NAME_CHARS_MAX = 64
TEXT_CHARS_MAX = 4_096
SESSIONS_MAX = 1_000
MESSAGES_KEPT = 1_000
SCHEMA = """
    CREATE TABLE IF NOT EXISTS messages (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        text TEXT NOT NULL,
        timestamp INTEGER NOT NULL
    ) STRICT
"""
NOW_MS = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"


class ChatRoom(DurableObject):
    """One room."""

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        self.sessions: dict[WebSocket, str] = {
            ws: ws.deserialize_attachment()["name"] for ws in ctx.get_websockets()
        }

    async def fetch(self, request: Request) -> Response:
        if request.path != "/websocket":
            return Response("Not Found", status=404)
        if not request.is_websocket_upgrade:
            return Response("Expected WebSocket", status=400)
        name = request.query.get("name") or "Anonymous"
        after = request.query.get("after", "")
        if len(name) > NAME_CHARS_MAX or not name.isprintable():
            text = f"name must be at most {NAME_CHARS_MAX} printable characters."
            return Response(text, status=400)
        if after and not (after.isascii() and after.isdigit() and len(after) < 16):
            return Response("after must be the last sequence that was seen.", status=400)
        if len(self.sessions) >= SESSIONS_MAX:
            return Response("The room is full.", status=503)
        client, server = WebSocketPair()
        self.handle_session(server, name, int(after) if after else None)
        return Response(None, status=101, web_socket=client)

    def handle_session(self, ws: WebSocket, name: str, after: int | None) -> None:
        """Let somebody in, and tell everybody."""
        self.ctx.accept_websocket(ws)
        ws.serialize_attachment({"name": name})
        if after is not None:
            for message in self.messages_behind(after):
                ws.send(json.dumps(message))
        self.sessions[ws] = name
        self.broadcast({"type": "join", "name": name, "count": len(self.sessions)})

    async def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        text = text_of(message)
        if text is None:
            expected = f'{{"type": "message", "text": up to {TEXT_CHARS_MAX} characters}}'
            ws.send(json.dumps({"type": "error", "message": f"Expected {expected}."}))
        elif ws in self.sessions:
            self.broadcast(self.store(self.sessions[ws], text))

    async def websocket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        self.remove(ws)

    async def websocket_error(self, ws: WebSocket, error: Exception) -> None:
        self.remove(ws)

    def remove(self, ws: WebSocket) -> None:
        """The session is over; doing it again changes nothing."""
        name = self.sessions.pop(ws, None)
        if name is not None:
            self.broadcast({"type": "leave", "name": name, "count": len(self.sessions)})

    def broadcast(self, message: dict[str, Any]) -> None:
        """Send to everybody; a session whose send fails is removed."""
        text = json.dumps(message)
        failed = []
        for ws in self.sessions:
            try:
                ws.send(text)
            except DosqlError:
                failed.append(ws)
        for ws in failed:
            self.remove(ws)

    # --- what was said ------------------------------------------------------------------------

    def store(self, name: str, text: str) -> dict[str, Any]:
        """Keep a message; returns it as it is sent."""
        sql = self.ctx.storage.sql
        sql.exec(SCHEMA)
        row = sql.exec(
            f"INSERT INTO messages(name, text, timestamp) VALUES (?, ?, {NOW_MS}) RETURNING *",
            *(name, text),
        ).one()
        sql.exec("DELETE FROM messages WHERE sequence <= ?", row["sequence"] - MESSAGES_KEPT)
        return message_of(row)

    def messages_behind(self, sequence: int) -> list[dict[str, Any]]:
        """What was said after the message of that number, as far as it is kept."""
        sql = self.ctx.storage.sql
        if not sql.exec("SELECT 1 FROM sqlite_schema WHERE name = 'messages'").to_list():
            return []
        rows = sql.exec("SELECT * FROM messages WHERE sequence > ? ORDER BY sequence", sequence)
        return [message_of(row) for row in rows]


def text_of(message: str | bytes) -> str | None:
    """What somebody says; None if the frame is not of that kind."""
    try:
        data = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("type") != "message":
        return None
    text = data.get("text")
    return text if isinstance(text, str) and 0 < len(text) <= TEXT_CHARS_MAX else None


def message_of(row: dict[str, Any]) -> dict[str, Any]:
    """The frame of a stored message."""
    return {
        "type": "message",
        "name": row["name"],
        "text": row["text"],
        "timestamp": row["timestamp"],
        "sequence": row["sequence"],
    }
