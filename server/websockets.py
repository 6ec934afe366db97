"""Upgrades: the answer to a request for a WebSocket, from the object's response to it.

The caller passes the ``websocket`` scope on to the object as a request, and its response to
`answer_upgrade`. With status 101 the socket leaves ASGI here (see `SocketProtocol`): the call
returns, and nothing of the request stays.
"""

from __future__ import annotations

from dosql.fetch import Response
from server.asgi import ClientGone, RawHeaders, Receive, Scope, Send
from server.socket_protocol import TAKE_OVER

_OF_THE_HANDSHAKE = frozenset(
    {
        b"connection",
        b"upgrade",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
    }
)
"""Headers of a 101 that only the server can know."""


async def expect_upgrade(receive: Receive) -> None:
    """Take the first message of a ``websocket`` scope.

    Raises:
        ClientGone: the client did not wait.
    """
    message = await receive()
    if message["type"] != "websocket.connect":
        raise ClientGone


async def answer_upgrade(
    scope: Scope, send: Send, response: Response, extra: RawHeaders = ()
) -> None:
    """Make the response's WebSocket the client's, or send the client the response instead.

    ``extra`` headers are added in both cases.

    Raises:
        ClientGone: the client did not wait; the object gets the close event.
        ConflictError: ``websocket_not_accepted``: no object accepted the socket.
    """
    headers = [*response.headers.raw(), *extra]
    if response.web_socket is None:
        await send_denial(send, response.status, await response.bytes(), headers)
        return
    kept = [pair for pair in headers if pair[0] not in _OF_THE_HANDSHAKE]
    scope["extensions"][TAKE_OVER](response.web_socket, kept)


async def send_denial(send: Send, status: int, body: bytes, headers: RawHeaders) -> None:
    """Answer a request for a WebSocket with an ordinary HTTP response."""
    sent = [pair for pair in headers if pair[0] not in (b"content-length", b"connection")]
    start = {"type": "websocket.http.response.start", "status": status, "headers": sent}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body})
