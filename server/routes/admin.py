"""Tenants, tokens and migrations, for the admin token."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from dosql.errors import InvalidRequestError
from dosql.host.names import check_tenant_name
from dosql.wire.migrations import MigrationReport, RunMigrations
from dosql.wire.tenants import CreateTenant, TenantInfo, TenantPage
from dosql.wire.tokens import CreateToken, TokenCreated, TokenInfo
from server.components import Components

PAGE_MAX = 1_000
_PREFIX_MAX = 63


@post("/tenants", tags=["Tenants"])
async def create_tenant(
    data: JSONBody[CreateTenant], components: NamedDependency[Components]
) -> TenantInfo:
    """Make a tenant. 409 `tenant_exists` if there is one of this name."""
    return await components.host.tenants.create(data.name)


@get("/tenants", tags=["Tenants"])
async def list_tenants(
    components: NamedDependency[Components],
    prefix: Annotated[str, QueryParameter(description="How the names begin.")] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Tenants per page.")] = 100,
    cursor: Annotated[
        str | None, QueryParameter(description="`cursor` of the page before.")
    ] = None,
) -> TenantPage:
    """Tenants in name order, page by page."""
    if len(prefix) > _PREFIX_MAX or (cursor is not None and len(cursor) > _PREFIX_MAX):
        raise InvalidRequestError("prefix or cursor is longer than any tenant name.")
    return components.host.tenants.list(prefix, limit, cursor)


@get("/tenants/{name:str}", tags=["Tenants"])
async def tenant_info(name: FromPath[str], components: NamedDependency[Components]) -> TenantInfo:
    """What is known of one tenant; it is not woken."""
    return await components.host.tenants.described(check_tenant_name(name))


@delete("/tenants/{name:str}", tags=["Tenants"])
async def delete_tenant(name: FromPath[str], components: NamedDependency[Components]) -> None:
    """Delete a tenant, its data and its tokens, for good."""
    await components.host.tenants.delete(check_tenant_name(name))


@post("/tokens", tags=["Tokens"])
async def create_token(
    data: JSONBody[CreateToken], components: NamedDependency[Components]
) -> TokenCreated:
    """A token for one tenant. Its text is told this once only."""
    check_tenant_name(data.tenant)
    return await components.host.tokens.create(data.tenant, data.access, data.expires_in)


@get("/tokens/{token_id:str}", tags=["Tokens"])
async def token_info(token_id: FromPath[str], components: NamedDependency[Components]) -> TokenInfo:
    """What is known of a token; never its text."""
    return components.host.tokens.get(token_id)


@delete("/tokens/{token_id:str}", tags=["Tokens"])
async def revoke_token(token_id: FromPath[str], components: NamedDependency[Components]) -> None:
    """The token opens nothing from now on."""
    await components.host.tokens.revoke(token_id)


@get("/migrations", tags=["Migrations"])
async def migration_status(components: NamedDependency[Components]) -> MigrationReport:
    """Which migrations each tenant has yet to get."""
    return components.host.schemas.report()


@post("/migrations", tags=["Migrations"], status_code=200)
async def run_migrations(
    data: JSONBody[RunMigrations], components: NamedDependency[Components]
) -> MigrationReport:
    """Apply what is pending, to one tenant or to all. What failed is in the report."""
    return await components.host.schemas.run(data)


JSON_ROUTES = [
    create_tenant,
    list_tenants,
    tenant_info,
    delete_tenant,
    create_token,
    token_info,
    revoke_token,
    migration_status,
    run_migrations,
]
