"""AsyncAdmin: tenants, tokens and migrations; needs the admin token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlencode

from dosql.client._async.transport import AsyncTransport
from dosql.client.calls import Call, Reply, check_tenant_name, decode, encode, json_headers
from dosql.client.files import PartFile, Progress, file_bytes, read_chunks
from dosql.wire import (
    CreateTenant,
    CreateToken,
    MigrationReport,
    RunMigrations,
    TenantInfo,
    TenantPage,
    TokenCreated,
    TokenInfo,
)

_JSON = json_headers({})


class AsyncAdmin:
    """What the admin token may do, by noun."""

    def __init__(self, transport: AsyncTransport) -> None:
        self.tenants = AsyncTenants(transport)
        self.tokens = AsyncTokens(transport)
        self.migrations = AsyncMigrations(transport)


class AsyncTenants:
    """All tenants of the server."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

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
        return decode(await self._transport.send(Call("GET", _path(name))), TenantInfo)

    async def delete(self, name: str) -> None:
        """Delete the tenant and its database for good.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        await self._transport.send(Call("DELETE", _path(name), writes=True, repeatable=False))

    async def export(self, name: str, path: str | Path, progress: Progress | None = None) -> int:
        """Write a consistent copy of the database to ``path``; returns its size in bytes.

        The file appears whole or not at all, and replaces an older one.
        """
        response = await self._transport.stream(Call("GET", f"{_path(name)}/export"))
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
        call = Call("PUT", f"{_path(name)}/import", headers=headers, writes=True, repeatable=False)
        response = await self._transport.stream(call, content=pieces)
        try:
            body = b"".join([chunk async for chunk in self._transport.chunks(response)])
        finally:
            await response.aclose()
        return decode(Reply(response.status_code, response.headers, body), TenantInfo)


class AsyncTokens:
    """Tenant tokens."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        tenant: str,
        *,
        access: Literal["read-write", "read-only"] = "read-write",
        expires_in_s: int | None = None,
    ) -> TokenCreated:
        """A token for one tenant; nobody can ask for its text again.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        body = encode(CreateToken(check_tenant_name(tenant), access, expires_in_s))
        call = Call("POST", "/admin/tokens", body, _JSON, writes=True, repeatable=False)
        return decode(await self._transport.send(call), TokenCreated)

    async def get(self, token_id: str) -> TokenInfo:
        """Raises NotFoundError (``token_not_found``)."""
        call = Call("GET", f"/admin/tokens/{quote(token_id, safe='')}")
        return decode(await self._transport.send(call), TokenInfo)

    async def revoke(self, token_id: str) -> None:
        """From now on the token is not valid.

        Raises:
            NotFoundError: ``token_not_found``.
        """
        path = f"/admin/tokens/{quote(token_id, safe='')}"
        await self._transport.send(Call("DELETE", path, writes=True, repeatable=False))


class AsyncMigrations:
    """The schema versions of the tenants."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def status(self) -> MigrationReport:
        """Where every tenant stands."""
        reply = await self._transport.send(Call("GET", "/admin/migrations"))
        return decode(reply, MigrationReport)

    async def run(self, tenant: str | None = None, *, dry_run: bool = False) -> MigrationReport:
        """Apply what is pending, to one tenant or to all.

        Failures of single tenants are in the report, not raised. Running it again is safe.
        """
        if tenant is not None:
            check_tenant_name(tenant)
        body = encode(RunMigrations(tenant, dry_run))
        call = Call("POST", "/admin/migrations", body, _JSON, writes=not dry_run)
        return decode(await self._transport.send(call), MigrationReport)


def _path(tenant: str) -> str:
    return f"/admin/tenants/{check_tenant_name(tenant)}"


def _content_length(header: str | None) -> int | None:
    return int(header) if header is not None and header.isdigit() else None
