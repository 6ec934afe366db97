"""Handshakes: uvicorn's WebSocket protocol, which answers a wrong handshake as other errors are.

The library beneath would answer with plain text, or leave the client waiting.
"""

from __future__ import annotations

from http import HTTPStatus

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from dosql.clock import Randomness, SystemRandomness
from dosql.errors import InvalidRequestError
from server.refusals import refuse

_KEPT_HEADERS = ("Allow", "Upgrade")
"""Of the library's answer: they say what would have been right."""
_MESSAGE_CHARS_MAX = 200


class HandshakeProtocol(WebSocketsSansIOProtocol):
    """One connection, from the request to upgrade on."""

    randomness: Randomness = SystemRandomness()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; first its handshake."""
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self._refuse(HTTPStatus.BAD_REQUEST, {})

    def handle_connect(self, event: Request) -> None:
        """The client asks for a WebSocket: the application starts soon."""
        answer = self.conn.accept(event)
        if answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
        else:
            kept = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
            self._refuse(HTTPStatus(answer.status_code), kept)

    def _refuse(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        reason = f"{self.conn.handshake_exc}".encode("ascii", "backslashreplace").decode()
        error = InvalidRequestError(
            f"The WebSocket handshake is wrong: {reason[:_MESSAGE_CHARS_MAX]}.",
            code="websocket_protocol_error",
        )
        refuse(self.transport, status, error, self.randomness, headers)
