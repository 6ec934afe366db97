"""AsyncAdmin: tenants, tokens and migrations; needs the admin token."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from dosql.client._async.tenants import AsyncTenants
from dosql.client._async.transport import AsyncTransport
from dosql.client.calls import Call, check_tenant_name, decode, encode, json_headers
from dosql.wire.migrations import MigrationReport, RunMigrations
from dosql.wire.tokens import CreateToken, TokenCreated, TokenInfo

_JSON = json_headers({})


class AsyncAdmin:
    """What the admin token may do, by noun."""

    def __init__(self, transport: AsyncTransport) -> None:
        self.tenants = AsyncTenants(transport)
        self.tokens = AsyncTokens(transport)
        self.migrations = AsyncMigrations(transport)


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
