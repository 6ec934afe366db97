"""Refusals: answers to what never became a request, and so met neither routes nor middleware."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from http import HTTPStatus

from dosql.clock import Randomness
from dosql.errors import DosqlError
from dosql.wire.failure import ErrorReply
from server.error_responses import encode_reply


def refuse(
    transport: asyncio.Transport,
    status: HTTPStatus,
    error: DosqlError,
    randomness: Randomness,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Write the error as every other is written, with a request id of its own, and close.
    Nothing happens if the connection is being closed already."""
    if transport.is_closing():
        return
    request_id = str(uuid.UUID(bytes=randomness.token_bytes(16), version=4))
    body = encode_reply(ErrorReply(error=error.message, code=error.code, request_id=request_id))
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    for name, value in {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        "x-content-type-options": "nosniff",
        "connection": "close",
        **(headers or {}),
    }.items():
        lines.append(f"{name}: {value}")
    transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
    transport.close()
