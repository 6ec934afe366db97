"""AsyncTenants: the tenants of a server, their databases as files, and as they were."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

from dosql.client._async.branches import AsyncBranches
from dosql.client._async.snapshots import AsyncSnapshots
from dosql.client._async.transport import AsyncTransport
from dosql.client.calls import (
    LONG_WORK_S,
    Call,
    Reply,
    check_tenant_name,
    decode,
    encode,
    json_headers,
    tenant_path,
)
from dosql.client.errors import outcome_unknown
from dosql.client.files import PartFile, Progress, file_bytes, read_chunks
from dosql.client.points import Point, point_text
from dosql.client.restoring import LINES, RestoreReader
from dosql.errors import UnavailableError
from dosql.wire.branches import Protection
from dosql.wire.restores import RestoreReply, RestoreRequest
from dosql.wire.tenants import CreateTenant, TenantInfo, TenantPage

_JSON = json_headers({})


class AsyncTenants:
    """All tenants of the server."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.branches = AsyncBranches(transport)
        self.snapshots = AsyncSnapshots(transport)

    async def create(self, name: str) -> TenantInfo:
        """Raises ConflictError (``tenant_exists``)."""
        body = encode(CreateTenant(check_tenant_name(name)))
        call = Call("POST", "/admin/tenants", body, _JSON, writes=True, repeatable=False)
        return decode(await self._transport.send(call), TenantInfo)

    async def list(self, prefix: str = "", *, page_size: int = 100) -> AsyncIterator[TenantInfo]:
        """Every tenant whose name starts with ``prefix``, in name order.

        Fetched page by page: one created or deleted meanwhile may or may not appear.
        """
        query = {"prefix": prefix, "limit": str(page_size)}
        while True:
            call = Call("GET", f"/admin/tenants?{urlencode(query)}")
            page = decode(await self._transport.send(call), TenantPage)
            for tenant in page.tenants:
                yield tenant
            if page.cursor is None:
                return
            query["cursor"] = page.cursor

    async def get(self, name: str) -> TenantInfo:
        """Raises NotFoundError (``tenant_not_found``)."""
        return decode(await self._transport.send(Call("GET", tenant_path(name))), TenantInfo)

    async def delete(self, name: str) -> None:
        """Delete the tenant and its database for good.

        Raises:
            NotFoundError: ``tenant_not_found``.
            ConflictError: ``tenant_protected``, ``tenant_has_branches``.
        """
        await self._transport.send(Call("DELETE", tenant_path(name), writes=True, repeatable=False))

    async def export(self, name: str, path: str | Path, progress: Progress | None = None) -> int:
        """Write a consistent copy of the database to ``path``; returns its size in bytes.

        The file appears whole or not at all, and replaces an older one.
        """
        response = await self._transport.stream(Call("GET", f"{tenant_path(name)}/export"))
        try:
            total = _content_length(response.headers.get("content-length"))
            with PartFile(Path(path)) as file:
                async for chunk in self._transport.chunks(response):
                    file.write(chunk)
                    if progress is not None:
                        progress(file.size_bytes, total)
                file.commit()
        finally:
            await response.aclose()
        return file.size_bytes

    async def import_(
        self, name: str, path: str | Path, progress: Progress | None = None
    ) -> TenantInfo:
        """Replace the tenant's database by the SQLite file at ``path``; creates the tenant.

        The server checks the file first and then switches at once: on any error the old
        database is still there.

        Raises:
            ConflictError: ``tenant_protected``, ``tenant_has_branches``.
        """
        total = file_bytes(Path(path))

        async def pieces() -> AsyncIterator[bytes]:
            sent = 0
            for chunk in read_chunks(Path(path)):
                yield chunk
                sent += len(chunk)
                if progress is not None:
                    progress(sent, total)

        headers = {"Content-Type": "application/vnd.sqlite3", "Content-Length": str(total)}
        call = Call(
            "PUT", f"{tenant_path(name)}/import", headers=headers, writes=True, repeatable=False
        )
        response = await self._transport.stream(call, content=pieces)
        try:
            body = b"".join([chunk async for chunk in self._transport.chunks(response)])
        finally:
            await response.aclose()
        return decode(Reply(response.status_code, response.headers, body), TenantInfo)

    async def restore(
        self,
        name: str,
        *,
        at: Point,
        to: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> RestoreReply:
        """Make the new tenant ``to`` of the tenant's state at a point; without it take the tenant
        itself back, in one commit: restoring the reply's ``undo_bookmark`` takes that back.

        ``dry_run``: build the state and check it, and change nothing. ``progress`` is told of the
        bytes that the server reads from the bucket, not of its work behind that.

        Raises:
            InvalidRequestError: ``invalid_time``, ``invalid_bookmark``; ``no_bucket``.
            NotFoundError: ``tenant_not_found``; ``restore_point_not_found``: it is not kept.
            ConflictError: ``tenant_exists``: there is a tenant ``to``. ``tenant_protected``.
            CorruptError: it cannot be had without a damaged file; nothing was changed.
        """
        if to is not None:
            check_tenant_name(to)
        body = encode(RestoreRequest(point_text(at), to, dry_run))
        call = Call(
            "POST",
            f"{tenant_path(name)}/restore",
            body,
            _JSON if progress is None else {**_JSON, **LINES},
            writes=not dry_run,
            repeatable=dry_run,
            timeout_s_min=LONG_WORK_S,
        )
        if progress is None:
            return decode(await self._transport.send(call), RestoreReply)
        return await self._follow_restore(call, progress)

    async def _follow_restore(self, call: Call, progress: Progress) -> RestoreReply:
        response = await self._transport.stream(call)
        reader = RestoreReader(response.headers, progress)
        lost = UnavailableError("The reply broke off.", code="connection_lost")
        try:
            async for chunk in self._transport.chunks(response):
                reader.feed(chunk)
        except UnavailableError as error:
            lost = error
        finally:
            await response.aclose()
        if reader.is_over:
            return reader.result()
        raise outcome_unknown(lost, None) if call.writes else lost

    async def protect(self, name: str, protected: bool = True) -> None:
        """Say whether the tenant may be deleted, replaced by an import, and merged into.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        path = f"{tenant_path(name)}/protection"
        call = Call("PUT", path, encode(Protection(protected)), _JSON, writes=True)
        await self._transport.send(call)


def _content_length(header: str | None) -> int | None:
    return int(header) if header is not None and header.isdigit() else None
