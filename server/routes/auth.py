"""Users and their sessions: the routes below a tenant, and the operator's for roles."""

from __future__ import annotations

import re
from typing import Annotated, Any

from litestar import get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from dosql.accounts import (
    ChangePassword,
    CurrentSession,
    LogIn,
    SessionCreated,
    SetRole,
    SignUp,
    TicketCreated,
    UserInfo,
    UserPage,
)
from dosql.errors import ForbiddenError, InvalidRequestError
from dosql.host.accounts import UserQuery
from dosql.host.names import check_tenant_name
from dosql.host.sessions import Session
from dosql.host.tenant import Tenant
from dosql.limits import USERS_PAGE_MAX
from dosql.wire.values import INT64_MAX
from server.auth import Auth
from server.components import Components
from server.context import RequestContext, context_of
from server.replies import AnyRequest

_SEARCH_MAX = 100
_CURSOR = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)


@post("/auth/signup", tags=["Auth"])
async def sign_up(
    request: AnyRequest,
    data: JSONBody[SignUp],
    auth: NamedDependency[Auth],
    components: NamedDependency[Components],
) -> SessionCreated:
    """Make a user of the role `user` and log in. 409 `email_taken`."""
    if auth.is_signup_open:
        tenant = await _visited(request, components)
    else:
        tenant = await _owned(request, components)
    return await auth.sign_up(tenant, data, auth.address_of(request.scope))


@post("/auth/login", tags=["Auth"], status_code=200)
async def log_in(
    request: AnyRequest,
    data: JSONBody[LogIn],
    auth: NamedDependency[Auth],
    components: NamedDependency[Components],
) -> SessionCreated:
    """Begin a session. 401 `invalid_credentials`, whatever is wrong."""
    tenant = await _visited(request, components)
    return await auth.log_in(tenant, data, auth.address_of(request.scope))


@post("/auth/refresh", tags=["Auth"], status_code=200)
async def refresh(request: AnyRequest, auth: NamedDependency[Auth]) -> SessionCreated:
    """Change the session's token; the old one is dead at once."""
    tenant, session = _session(context_of(request.scope))
    return await auth.refresh(tenant, session)


@post("/auth/logout", tags=["Auth"], status_code=204)
async def log_out(request: AnyRequest, auth: NamedDependency[Auth]) -> None:
    """End the session."""
    tenant, session = _session(context_of(request.scope))
    await auth.log_out(tenant, session)


@get("/auth/me", tags=["Auth"])
async def me(request: AnyRequest, auth: NamedDependency[Auth]) -> CurrentSession:
    """Whose session it is."""
    _, session = _session(context_of(request.scope))
    return auth.current(session)


@post("/auth/password", tags=["Auth"], status_code=200)
async def change_password(
    request: AnyRequest, data: JSONBody[ChangePassword], auth: NamedDependency[Auth]
) -> SessionCreated:
    """Choose another password. All sessions of the user end; the reply begins a new one."""
    tenant, session = _session(context_of(request.scope))
    address = auth.address_of(request.scope)
    return await auth.change_password(tenant, session, data, address)


@post("/auth/ticket", tags=["Auth"])
async def ticket(request: AnyRequest, auth: NamedDependency[Auth]) -> TicketCreated:
    """A ticket for one WebSocket or event stream of this tenant: `?ticket=...` within 30 s."""
    context = context_of(request.scope)
    assert context.principal is not None and context.tenant is not None
    return auth.ticket(context.principal, context.tenant)


@get("/api/v1/users", tags=["Users"])
async def users(
    request: AnyRequest,
    auth: NamedDependency[Auth],
    limit: Annotated[
        int, QueryParameter(ge=1, le=INT64_MAX, description="Users per page; at most 100.")
    ] = 20,
    offset: Annotated[
        int, QueryParameter(ge=0, le=INT64_MAX, description="How many to leave out.")
    ] = 0,
    search: Annotated[
        str, QueryParameter(max_length=_SEARCH_MAX, description="Part of a name or an address.")
    ] = "",
    cursor: Annotated[
        str | None, QueryParameter(description="`pagination.cursor` of the page before.")
    ] = None,
) -> UserPage:
    """Users, the newest first. For the role `admin`, and for the tenant's own tokens."""
    tenant = context_of(request.scope).tenant
    assert tenant is not None
    query = UserQuery(min(limit, USERS_PAGE_MAX), offset, _text(search), _after(cursor))
    return await auth.users(tenant, query)


@put("/tenants/{name:str}/users/{user_id:int}/role", tags=["Users"])
async def set_role(
    name: FromPath[str],
    user_id: FromPath[int],
    data: JSONBody[SetRole],
    auth: NamedDependency[Auth],
    components: NamedDependency[Components],
) -> UserInfo:
    """Give a user another role; all sessions of that user end."""
    tenant = components.host.tenants.get(check_tenant_name(name))
    if not 0 < user_id <= INT64_MAX:
        raise InvalidRequestError("A user's id is a number from 1.")
    return await auth.set_role(tenant, user_id, data)


async def _visited(request: AnyRequest, components: Components) -> Tenant:
    context = context_of(request.scope)
    context.tenant = await components.gate.visit(context.headers, context.path_tenant)
    return context.tenant


async def _owned(request: AnyRequest, components: Components) -> Tenant:
    """For those only whose token may write the tenant's data."""
    context = context_of(request.scope)
    entered = await components.gate.enter(context.headers, context.path_tenant)
    context.principal, context.tenant = entered
    if context.principal.kind == "session" or context.principal.read_only:
        raise ForbiddenError("Users cannot sign up here themselves.", code="signup_closed")
    return context.tenant


def _session(context: RequestContext) -> tuple[Tenant, Session]:
    session = context.principal.session if context.principal is not None else None
    if context.tenant is None or session is None:
        raise ForbiddenError("This needs the session of a user.", code="session_required")
    return context.tenant, session


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("search is not text.") from None
    return value


def _after(cursor: str | None) -> tuple[int, int] | None:
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequestError("cursor is not one of a page of users.")
    return min(int(match[1]), INT64_MAX), min(int(match[2]), INT64_MAX)


OPEN_ROUTES: list[Any] = [sign_up, log_in]
"""Anybody may ask."""
SESSION_ROUTES: list[Any] = [refresh, log_out, me, change_password, ticket]
USER_ROUTES: list[Any] = [users]
ROLE_ROUTES: list[Any] = [set_role]
"""Below ``/admin``."""
