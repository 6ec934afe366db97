"""Guards: how Litestar's handlers reach the gate. They run before a handler's body is read.

They are plain functions: Litestar copies routers deeply, and with them all but functions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from dosql.errors import AuthenticationError
from dosql.host.tenant import Tenant
from server.context import context_of
from server.gate import Gate, role_required
from server.sql_routes import require_json
from server.sql_work import writes_refused

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Guards:
    """Each fills in the request's context, or raises."""

    admin: Guard
    """Only the admin token passes."""
    tenant: Guard
    """A token that opens the SQL of the tenant that the request names."""
    user: Guard
    """A token that may reach that tenant, also the session of a user of any role."""


def make_guards(gate: Gate[Tenant]) -> Guards:
    """The guards that ask this gate."""

    async def admin(connection: Connection, _: BaseRouteHandler) -> None:
        context = context_of(connection.scope)
        context.principal = gate.authenticate_admin(context.headers)

    async def tenant(connection: Connection, _: BaseRouteHandler) -> None:
        context = context_of(connection.scope)
        entered = await gate.enter_sql(context.headers, context.path_tenant)
        context.principal, context.tenant = entered

    async def user(connection: Connection, _: BaseRouteHandler) -> None:
        context = context_of(connection.scope)
        entered = await gate.enter(context.headers, context.path_tenant)
        context.principal, context.tenant = entered

    return Guards(admin, tenant, user)


def require_role(*roles: str) -> Guard:
    """A guard behind `Guards.user`: of users, only those of one of the roles pass. The tokens of
    the tenant itself, and the admin token, do anyway: they open all of its data.

    Raises:
        ForbiddenError: ``role_required``.
        AuthenticationError: nobody has asked who it is: a mistake, but a closed door.
    """
    allowed = frozenset(roles)

    async def guard(connection: Connection, _: BaseRouteHandler) -> None:
        principal = context_of(connection.scope).principal
        if principal is None or principal.kind == "nobody":
            raise AuthenticationError("Missing authorization header", code="missing_token")
        if principal.kind == "session":
            session = principal.session
            if session is None or session.user.role not in allowed:
                raise role_required(allowed)

    return guard


async def writer(connection: Connection, _: BaseRouteHandler) -> None:
    """After the tenant's guard: a token that may write."""
    principal = context_of(connection.scope).principal
    if principal is None or principal.read_only:
        raise writes_refused()


async def json(connection: Connection, _: BaseRouteHandler) -> None:
    """A body, if there is one, that is said to be JSON."""
    require_json(context_of(connection.scope).headers)
