"""Whole databases as files: streamed out, streamed in, never held in memory."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from contextlib import AsyncExitStack
from pathlib import Path
from typing import BinaryIO

from litestar import get, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from dosql.errors import InvalidRequestError, QuotaError
from dosql.host.names import check_tenant_name
from dosql.wire.tenants import TenantInfo
from server.asgi import ClientGone, Receive, Scope, Send
from server.components import Components
from server.replies import AnyRequest, AsgiReply

SQLITE_TYPE = "application/vnd.sqlite3"
_CHUNK_BYTES = 256 * 1024
_WRITE_BYTES = 1024 * 1024
"""Received chunks are small; a thread hop for each would cost more than the write."""


@get("/tenants/{name:str}/export", tags=["Tenants"], media_type=SQLITE_TYPE)
async def export_tenant(name: FromPath[str], components: NamedDependency[Components]) -> AsgiReply:
    """A consistent copy of the database as a `.sqlite` file."""
    stack = AsyncExitStack()
    path = await stack.enter_async_context(components.host.tenants.export(check_tenant_name(name)))

    async def stream(_: Scope, __: Receive, send: Send) -> None:
        async with stack:
            with path.open("rb") as file:
                await _send_file(send, file, path.stat().st_size, f"{name}.sqlite")

    return AsgiReply(stream)


async def _send_file(send: Send, file: BinaryIO, size: int, name: str) -> None:
    headers = [
        (b"content-type", SQLITE_TYPE.encode()),
        (b"content-length", b"%d" % size),
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@put("/tenants/{name:str}/import", tags=["Tenants"], status_code=201)
async def import_tenant(
    name: FromPath[str],
    request: AnyRequest,
    components: NamedDependency[Components],
) -> TenantInfo:
    """Replace the tenant's database by the `.sqlite` file in the body; creates the tenant.

    The file is checked first: on any error the tenant is as it was.
    """
    check_tenant_name(name)
    path = components.host.scratch_dir / f"import-{components.randomness.token_urlsafe(12)}.sqlite"
    try:
        try:
            size = await _receive_file(request.receive, path)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise QuotaError("The disk is full.", code="disk_full") from exc
            raise
        if size == 0:
            raise InvalidRequestError("The body is empty.", code="invalid_database")
        return await components.host.tenants.import_file(name, path)
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


async def _receive_file(receive: Receive, path: Path) -> int:
    """Write the body to a new file; returns its size in bytes."""
    buffer = bytearray()
    size = 0
    with path.open("xb") as file:
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            buffer += message.get("body", b"")
            more = message.get("more_body", False)
            if len(buffer) >= _WRITE_BYTES or not more:
                size += len(buffer)
                await asyncio.to_thread(file.write, bytes(buffer))
                buffer.clear()
    return size


FILE_ROUTES = [export_tenant, import_tenant]
