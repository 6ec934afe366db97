"""The ASGI messages that are sent and read by hand, and their types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from dosql.errors import LimitError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""Loose types: every framework has its own for the same messages."""
RawHeaders = Iterable[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
NDJSON = b"application/x-ndjson"
"""A reply as a stream of lines of JSON."""


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(receive: Receive) -> bytes:
    """The whole request body. The edge has seen to its size.

    Raises:
        ClientGone: the client went away.
        LimitError: ``body_too_large``, from the edge.
    """
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        parts.append(message.get("body", b""))
    return b"".join(parts)


async def send_json(send: Send, status: int, body: bytes, headers: RawHeaders = ()) -> None:
    """A complete reply with a JSON body."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [JSON_TYPE, (b"content-length", b"%d" % len(body)), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


DRAIN_FACTOR = 8
"""A body up to so many times its limit is read and dropped before it is refused, so that the
client gets to read the refusal; a larger one meets a closed connection."""


def counted(receive: Receive, limit: int) -> Receive:
    """``receive`` for a body without Content-Length: LimitError once it grows past ``limit``."""
    taken = 0

    async def receive_counted() -> Message:
        nonlocal taken
        message: Message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            if message.get("more_body", False):
                await drain(receive, limit * DRAIN_FACTOR - taken)
            raise body_too_large(limit)
        return message

    return receive_counted


async def drain(receive: Receive, limit: int) -> None:
    """Read and drop the rest of a body, up to ``limit`` bytes."""
    taken = 0
    while taken <= limit:
        message = await receive()
        taken += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def body_too_large(limit: int) -> LimitError:
    """The error for a request body beyond ``limit`` bytes."""
    return LimitError(f"The request body is larger than {limit:,} bytes.", code="body_too_large")
