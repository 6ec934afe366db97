"""How a stream of the server's own says who wants it, before it is accepted.

By header, as every request; a browser cannot send one with a WebSocket or an EventSource, so also

- ``Sec-WebSocket-Protocol: dosql, dosql.bearer.TOKEN`` (the answer names ``dosql``), or
- ``?ticket=...``, from ``POST /auth/ticket``.

A browser says which page it asks for; a page of somebody else's is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qsl, urlencode

from dosql.errors import ForbiddenError
from server.asgi import Message, Scope, Send
from server.auth_watch import StillValid, Watches
from server.context import RequestContext

PROTOCOL = "dosql"
_BEARER = "dosql.bearer."
REVOKED = 4401
"""Close code: log in again."""


def take_protocol_token(scope: Scope, context: RequestContext) -> None:
    """Move a token in the list of subprotocols to where all others are."""
    if b"authorization" in context.headers:
        return
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(_BEARER):
            context.headers[b"authorization"] = b"Bearer " + protocol[len(_BEARER) :].encode()
            return


def take_ticket(scope: Scope) -> str | None:
    """Cut the ticket out of the query."""
    query: bytes = scope["query_string"]
    if b"ticket=" not in query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    rest = [(name, value) for name, value in pairs if name != "ticket"]
    scope["query_string"] = urlencode(rest).encode()
    return next((value for name, value in pairs if name == "ticket"), None)


def check_origin(headers: dict[bytes, bytes], allowed: frozenset[str]) -> None:
    """Raises ForbiddenError (``origin_not_allowed``) for a WebSocket of a page that is neither
    from this server nor on the list. Other clients than browsers send no origin."""
    origin = headers.get(b"origin")
    if origin is None:
        return
    text = origin.decode("latin-1").lower()
    host = headers.get(b"host", b"").decode("latin-1").lower()
    if text in allowed or (host and text in (f"http://{host}", f"https://{host}")):
        return
    raise ForbiddenError(
        "Pages of this origin may not open a WebSocket here.", code="origin_not_allowed"
    )


def with_protocol(scope: Scope, send: Send) -> Send:
    """``send`` that names the subprotocol when it accepts: a browser insists on one."""
    if PROTOCOL not in scope.get("subprotocols", ()):
        return send

    async def send_out(message: Message) -> None:
        if message["type"] == "websocket.accept":
            message["subprotocol"] = PROTOCOL
        await send(message)

    return send_out


async def until_revoked(
    stream: Coroutine[Any, Any, None],
    still_valid: StillValid,
    watches: Watches,
    context: RequestContext,
    send: Send,
    *,
    is_socket: bool,
) -> None:
    """Run the stream; end it when its principal may not read it any more."""
    with watches.watch(still_valid) as watch:
        streaming = asyncio.ensure_future(stream)
        revoked = asyncio.ensure_future(watch.revoked.wait())
        try:
            await asyncio.wait([streaming, revoked], return_when=asyncio.FIRST_COMPLETED)
        finally:
            revoked.cancel()
            ended = streaming.done()
            if not ended:
                streaming.cancel()
                await asyncio.wait([streaming])
        if ended or not streaming.cancelled():
            streaming.result()
            return
    if is_socket:
        await send({"type": "websocket.close", "code": REVOKED, "reason": "invalid_token"})
    elif context.status:
        await send({"type": "http.response.body", "body": b""})
