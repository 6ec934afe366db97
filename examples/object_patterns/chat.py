"""ChatRoom: the room pattern with messages of its own."""

from __future__ import annotations

from dosql import InvalidRequestError, WebSocket
from dosql.patterns import WebSocketRoom

TEXT_CHARS_MAX = 4_096


class ChatRoom(WebSocketRoom):
    """``{"type": "chat", "message"}`` goes to everybody; other messages are the pattern's."""

    async def handle_message(self, ws: WebSocket, message: str) -> None:
        data = self.parse_message(message)
        if data.get("type") != "chat":
            await super().handle_message(ws, message)
            return
        text = data.get("message")
        if not isinstance(text, str) or not 0 < len(text) <= TEXT_CHARS_MAX:
            raise InvalidRequestError(f"message must be text, up to {TEXT_CHARS_MAX} characters.")
        self.broadcast(
            self.record(
                {
                    "type": "chat",
                    "userId": self.find_user_id_by_websocket(ws),
                    "message": text,
                    "timestamp": self.now_ms(),
                }
            )
        )
