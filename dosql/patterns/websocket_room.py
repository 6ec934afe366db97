"""WebSocketRoom: everybody who is connected hears what anybody says.

A client connects with ``?userId=``. It gets ``welcome``; the others get ``user_joined``, and
``user_left`` when the user's last connection is gone. ``{"type": "message", "payload": ...}`` is
stored and sent to all, the sender included, as
``{"type": "message", "userId", "payload", "timestamp", "sequence"}``.

- Connections survive hibernation: whose they are stands in their attachment, nothing in memory.
- A message is on disk before anybody hears of it, and ``sequence`` has no gaps. A client that lost
  its connection comes back with ``&after=<last sequence it saw>`` and gets what it missed, in
  order, as far as the room keeps it (``history_max``): behind the ``sequence`` of ``welcome``, from
  its ``first`` on.
- Who the user is must be decided before the room: `userId` is believed. Put a router in front that
  checks a session, and `origin_allowed` for browsers.

Override ``handle_message(ws, message)`` for messages of your own, ``room_state()`` for what a
newcomer is told, and the limits below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from json import JSONDecodeError
from typing import Any, ClassVar

import msgspec

from dosql import (
    DosqlError,
    InvalidRequestError,
    OverloadedError,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
)
from dosql.patterns.base import BaseDurableObject

_USER_ID = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
_decode = msgspec.json.Decoder().decode
"""Stricter than Python's: no NaN, no lone surrogates, which browsers could not read."""
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS room_messages (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        message TEXT NOT NULL
    )
"""


class WebSocketRoom(BaseDurableObject):
    """One room. Register it as it is, or subclass it."""

    connections_max: ClassVar[int] = 1_000
    """Further connections are refused with 503."""
    message_bytes_max: ClassVar[int] = 64 * 1024
    """A longer frame is answered with an error frame and not passed on."""
    history_max: ClassVar[int] = 1_000
    """Messages kept for those who reconnect; 0 keeps none."""
    not_rpc: ClassVar[frozenset[str]] = BaseDurableObject.not_rpc | {
        *("handle_message", "parse_message", "room_state", "connect", "send"),
        *("record", "find_user_id_by_websocket"),
    }

    # --- connections --------------------------------------------------------------------------

    async def handle_request(self, request: Request) -> Response:
        if not request.is_websocket_upgrade:
            return self.error("Expected Upgrade: websocket", 426, headers={"Upgrade": "websocket"})
        return self.connect(request)

    def connect(self, request: Request) -> Response:
        """Let the client in: 101 with its end of the connection.

        Raises:
            InvalidRequestError: no ``userId``, or ``after`` is not a number.
            OverloadedError: the room is full.
        """
        user_id = request.query.get("userId", "")
        if not _USER_ID.fullmatch(user_id):
            raise InvalidRequestError("userId must be 1 to 64 printable characters.")
        after = request.query.get("after")
        if after is not None and not re.fullmatch(r"[0-9]{1,15}", after, re.ASCII):
            raise InvalidRequestError("after must be the sequence of the last message seen.")
        if len(self.ctx.get_websockets()) >= self.connections_max:
            raise OverloadedError("The room is full.")
        is_new = not self.ctx.get_websockets(_tag(user_id))
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server, [_tag(user_id)])
        server.serialize_attachment({"userId": user_id, "joinedAt": self.now_ms()})
        first, last = self._kept()
        seen = last if after is None else min(int(after), last)
        welcome = {"userId": user_id, "roomState": self.room_state(), "first": first}
        self.send(server, {"type": "welcome", **welcome, "sequence": seen})
        self._replay(server, seen)
        if is_new:
            joined = {"type": "user_joined", "userId": user_id, "timestamp": self.now_ms()}
            self.broadcast(joined, exclude=server)
        return Response(None, status=101, web_socket=client)

    async def websocket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        """Announces the user's leaving, once, when no other connection of theirs is open."""
        user_id = self.find_user_id_by_websocket(ws)
        if user_id is None:
            return
        ws.serialize_attachment(None)  # so that nothing that still comes announces it again
        if all(other is ws for other in self.ctx.get_websockets(_tag(user_id))):
            left = {"type": "user_left", "userId": user_id, "timestamp": self.now_ms()}
            self.broadcast(left, exclude=ws)

    async def websocket_error(self, ws: WebSocket, error: Exception) -> None:
        """A connection that failed has left."""
        await self.websocket_close(ws, 1006, str(error), False)

    def find_user_id_by_websocket(self, ws: WebSocket) -> str | None:
        """Whose connection it is; None once it has left."""
        attachment = ws.deserialize_attachment()
        return attachment["userId"] if isinstance(attachment, dict) else None

    def room_state(self) -> dict[str, Any]:
        """What a newcomer is told about the room: who is in it."""
        users = {self.find_user_id_by_websocket(ws) for ws in self.ctx.get_websockets()}
        return {"users": sorted(user for user in users if user is not None)}

    # --- messages -----------------------------------------------------------------------------

    async def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Checks the frame's kind and size, then calls `handle_message`.

        What that refuses (`DosqlError`, text that is not JSON) becomes an error frame for the
        sender. Any other exception does too, without its text, and goes to the log.
        """
        try:
            if isinstance(message, bytes):
                raise InvalidRequestError("Messages are text, not binary.")
            if len(message.encode()) > self.message_bytes_max:
                raise InvalidRequestError(
                    f"A message has at most {self.message_bytes_max} bytes.", code="too_large"
                )
            await self.handle_message(ws, message)
        except (msgspec.DecodeError, JSONDecodeError):
            self._refuse(ws, "The message is not JSON.", "invalid_json")
        except DosqlError as error:
            self._refuse(ws, error.message, error.code)
        except Exception:
            self._refuse(ws, "Internal error", "internal_error")
            raise

    async def handle_message(self, ws: WebSocket, message: str) -> None:
        """Override for messages of your own; call ``super()`` for the rest."""
        data = self.parse_message(message)
        if data.get("type") != "message" or "payload" not in data:
            raise InvalidRequestError('Expected {"type": "message", "payload": ...}.')
        user_id = self.find_user_id_by_websocket(ws)
        self.broadcast(
            self.record({"type": "message", "userId": user_id, "payload": data["payload"]})
        )

    def parse_message(self, message: str) -> dict[str, Any]:
        """The message as a JSON object.

        Raises:
            InvalidRequestError: it is none.
        """
        try:
            data = _decode(message)
        except (ValueError, RecursionError):
            raise InvalidRequestError("The message is not JSON.", code="invalid_json") from None
        if not isinstance(data, dict):
            raise InvalidRequestError("The message must be a JSON object.")
        return data

    def record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Store a message for those who reconnect; returns it with ``timestamp``, ``sequence``.

        It is durable before anything that is sent afterwards leaves the object.
        """
        sql = self.ctx.storage.sql
        sql.exec(_SCHEMA)
        stored = {**message}
        stored.setdefault("timestamp", self.now_ms())
        row = sql.exec(
            "INSERT INTO room_messages(message) VALUES (?) RETURNING sequence", _encode(stored)
        ).one()
        sql.exec(
            "DELETE FROM room_messages WHERE sequence <= ?", row["sequence"] - self.history_max
        )
        return {**stored, "sequence": row["sequence"]}

    def broadcast(self, message: Mapping[str, Any], exclude: WebSocket | None = None) -> int:
        """Send to everybody but ``exclude``; returns to how many connections.

        A connection that takes no more is closed, and leaves as any other does.
        """
        text = _encode(message)
        return sum(
            self._send_text(ws, text) for ws in self.ctx.get_websockets() if ws is not exclude
        )

    def send(self, ws: WebSocket, message: Mapping[str, Any]) -> bool:
        """Send to one connection; False if it is closed."""
        return self._send_text(ws, _encode(message))

    def _send_text(self, ws: WebSocket, text: str) -> bool:
        try:
            ws.send(text)
        except DosqlError:
            return False
        return True

    def _refuse(self, ws: WebSocket, message: str, code: str) -> None:
        self.send(ws, {"type": "error", "message": message, "code": code})

    def _kept(self) -> tuple[int, int]:
        """The sequences of the oldest kept message and of the newest ever; 0 if there is none."""
        if not self._has_messages():
            return 0, 0
        row = self.ctx.storage.sql.exec(
            "SELECT coalesce(min(sequence), 0) AS first, (SELECT seq FROM sqlite_sequence "
            "WHERE name = 'room_messages') AS last FROM room_messages"
        ).one()
        return row["first"], row["last"]

    def _replay(self, ws: WebSocket, after: int) -> None:
        if not self._has_messages():
            return
        missed = self.ctx.storage.sql.exec(
            "SELECT sequence, message FROM room_messages WHERE sequence > ? ORDER BY sequence",
            after,
        )
        for row in missed:
            self.send(ws, {**_decode(row["message"]), "sequence": row["sequence"]})

    def _has_messages(self) -> bool:
        """A room in which nobody ever spoke has no table, and takes no disk space."""
        table = "SELECT 1 FROM sqlite_schema WHERE name = 'room_messages'"
        return bool(self.ctx.storage.sql.exec(table).to_list())


def _encode(message: Mapping[str, Any]) -> str:
    return msgspec.json.encode(message).decode()


def _tag(user_id: str) -> str:
    return f"user:{user_id}"
