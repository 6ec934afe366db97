# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Admin: tenants, tokens and migrations; needs the admin token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlencode

from dosql.client._sync.transport import Transport
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


class Admin:
    """What the admin token may do, by noun."""

    def __init__(self, transport: Transport) -> None:
        self.tenants = Tenants(transport)
        self.tokens = Tokens(transport)
        self.migrations = Migrations(transport)


class Tenants:
    """All tenants of the server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str) -> TenantInfo:
        """Raises ConflictError (``tenant_exists``)."""
        body = encode(CreateTenant(check_tenant_name(name)))
        call = Call("POST", "/admin/tenants", body, _JSON, writes=True, repeatable=False)
        return decode(self._transport.send(call), TenantInfo)

    def list(self, prefix: str = "", *, page_size: int = 100) -> Iterator[TenantInfo]:
        """Every tenant whose name starts with ``prefix``, in name order.

        Fetched page by page: one created or deleted meanwhile may or may not appear.
        """
        query = {"prefix": prefix, "limit": str(page_size)}
        while True:
            call = Call("GET", f"/admin/tenants?{urlencode(query)}")
            page = decode(self._transport.send(call), TenantPage)
            yield from page.tenants
            if page.cursor is None:
                return
            query["cursor"] = page.cursor

    def get(self, name: str) -> TenantInfo:
        """Raises NotFoundError (``tenant_not_found``)."""
        return decode(self._transport.send(Call("GET", _path(name))), TenantInfo)

    def delete(self, name: str) -> None:
        """Delete the tenant and its database for good.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        self._transport.send(Call("DELETE", _path(name), writes=True, repeatable=False))

    def export(self, name: str, path: str | Path, progress: Progress | None = None) -> int:
        """Write a consistent copy of the database to ``path``; returns its size in bytes.

        The file appears whole or not at all, and replaces an older one.
        """
        response = self._transport.stream(Call("GET", f"{_path(name)}/export"))
        try:
            total = _content_length(response.headers.get("content-length"))
            with PartFile(Path(path)) as file:
                for chunk in self._transport.chunks(response):
                    file.write(chunk)
                    if progress is not None:
                        progress(file.size_bytes, total)
                file.commit()
        finally:
            response.close()
        return file.size_bytes

    def import_(self, name: str, path: str | Path, progress: Progress | None = None) -> TenantInfo:
        """Replace the tenant's database by the SQLite file at ``path``; creates the tenant.

        The server checks the file first and then switches at once: on any error the old
        database is still there.
        """
        total = file_bytes(Path(path))

        def pieces() -> Iterator[bytes]:
            sent = 0
            for chunk in read_chunks(Path(path)):
                yield chunk
                sent += len(chunk)
                if progress is not None:
                    progress(sent, total)

        headers = {"Content-Type": "application/vnd.sqlite3", "Content-Length": str(total)}
        call = Call("PUT", f"{_path(name)}/import", headers=headers, writes=True, repeatable=False)
        response = self._transport.stream(call, content=pieces)
        try:
            body = b"".join([chunk for chunk in self._transport.chunks(response)])
        finally:
            response.close()
        return decode(Reply(response.status_code, response.headers, body), TenantInfo)


class Tokens:
    """Tenant tokens."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
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
        return decode(self._transport.send(call), TokenCreated)

    def get(self, token_id: str) -> TokenInfo:
        """Raises NotFoundError (``token_not_found``)."""
        call = Call("GET", f"/admin/tokens/{quote(token_id, safe='')}")
        return decode(self._transport.send(call), TokenInfo)

    def revoke(self, token_id: str) -> None:
        """From now on the token is not valid.

        Raises:
            NotFoundError: ``token_not_found``.
        """
        path = f"/admin/tokens/{quote(token_id, safe='')}"
        self._transport.send(Call("DELETE", path, writes=True, repeatable=False))


class Migrations:
    """The schema versions of the tenants."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def status(self) -> MigrationReport:
        """Where every tenant stands."""
        reply = self._transport.send(Call("GET", "/admin/migrations"))
        return decode(reply, MigrationReport)

    def run(self, tenant: str | None = None, *, dry_run: bool = False) -> MigrationReport:
        """Apply what is pending, to one tenant or to all.

        Failures of single tenants are in the report, not raised. Running it again is safe.
        """
        if tenant is not None:
            check_tenant_name(tenant)
        body = encode(RunMigrations(tenant, dry_run))
        call = Call("POST", "/admin/migrations", body, _JSON, writes=not dry_run)
        return decode(self._transport.send(call), MigrationReport)


def _path(tenant: str) -> str:
    return f"/admin/tenants/{check_tenant_name(tenant)}"


def _content_length(header: str | None) -> int | None:
    return int(header) if header is not None and header.isdigit() else None
