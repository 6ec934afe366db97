"""Gate: who asks, and for which tenant. It knows bytes and text, no framework.

Every way into an object passes here, so no rule about tokens and tenant names stands elsewhere.

- Authentication comes first: without a valid token nothing is learned, not even whether a name
  would do.
- A tenant token reaches its own tenant only. Any other name is ``tenant_not_found``, whether that
  tenant exists or not, and touches no disk.
- The session token of a user is looked up in the tenant that the request names, and nowhere else;
  for any other tenant, there or not, it is an invalid token. It opens SQL only to some roles.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from dosql.errors import (
    AuthenticationError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)
from dosql.host.names import check_tenant_name
from dosql.host.sessions import PREFIX as SESSION_PREFIX
from dosql.host.sessions import Session
from dosql.limits import RESERVED_TENANT_NAMES
from server.auth_tickets import Tickets

Headers = Mapping[bytes, bytes]
"""Lower-case names; several headers of one name joined by a comma, as RFC 9110 has it."""

_NOT_TENANTS = RESERVED_TENANT_NAMES | {"www"}
"""First labels of a host name that mean the server itself."""

TenantT_co = TypeVar("TenantT_co", covariant=True)
TenantT = TypeVar("TenantT")
TenantT_contra = TypeVar("TenantT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a token speaks for."""

    kind: Literal["admin", "tenant", "session", "nobody"]
    tenant: str | None = None
    """The only tenant it reaches; None: every tenant."""
    read_only: bool = False
    session: Session | None = None
    """Of a user."""
    token: str = field(default="", repr=False, compare=False)
    """Of a tenant: to ask again whether it is still good."""


ADMIN = Principal("admin")
NOBODY = Principal("nobody", read_only=True)
"""Who sent no token."""


class KnownToken(Protocol):
    """What the gate needs to know of a tenant token."""

    @property
    def tenant(self) -> str: ...
    @property
    def read_only(self) -> bool: ...


class TokenCheck(Protocol):
    """Where tenant tokens are known."""

    def check(self, token: str, /) -> KnownToken | None: ...


class SessionCheck(Protocol[TenantT_contra]):
    """Where the sessions of users are known."""

    async def check(self, tenant: TenantT_contra, token: bytes, /) -> Session | None: ...
    def follow(
        self, tenant: TenantT_contra, session: Session, roles: frozenset[str] | None, /
    ) -> Callable[[], bool | Awaitable[bool]]: ...


class TenantLookup(Protocol[TenantT_co]):
    """Where tenants are known."""

    def get(self, name: str, /) -> TenantT_co: ...
    async def ensure(self, name: str, /) -> TenantT_co: ...


class Gate(Generic[TenantT]):
    """Decides on tokens and tenant names. Its methods raise the error that the client gets."""

    def __init__(
        self,
        *,
        admin_token: str,
        tokens: TokenCheck,
        tenants: TenantLookup[TenantT],
        sessions: SessionCheck[TenantT] | None = None,
        tickets: Tickets | None = None,
        sql_roles: frozenset[str] = frozenset(),
        default_tenant: str | None = None,
        create_tenants: bool = True,
        base_domain: str | None = None,
    ) -> None:
        """``sql_roles``: the users whose sessions open SQL. Without ``sessions`` none is valid."""
        self._admin_digest = _digest(admin_token.encode())
        self._tokens = tokens
        self._tenants = tenants
        self._sessions = sessions
        self._tickets = tickets
        self._sql_roles = sql_roles
        self._default_tenant = default_tenant
        self._create_tenants = create_tenants
        self._host_suffix = None if base_domain is None else "." + base_domain.lower().strip(".")

    async def enter(
        self, headers: Headers, path_tenant: str | None, *, ticket: str | None = None
    ) -> tuple[Principal, TenantT]:
        """Who asks, and the tenant that the request names, if that principal may reach it: for
        the routes of applications, which look at roles themselves. ``ticket``: what the URL of a
        stream has instead of a token.

        Raises: as `authenticate` and `tenant`.
        """
        if ticket is not None and b"authorization" not in headers:
            return await self._enter_with_ticket(headers, path_tenant, ticket)
        credentials = bearer(headers)
        if credentials.startswith(SESSION_PREFIX):
            tenant, session = await self._session(headers, path_tenant, credentials)
            name = self.tenant_name(headers, path_tenant)
            return Principal("session", name, session=session), tenant
        principal = self._authenticate(credentials)
        return principal, await self.tenant(principal, headers, path_tenant)

    async def enter_sql(
        self, headers: Headers, path_tenant: str | None, *, ticket: str | None = None
    ) -> tuple[Principal, TenantT]:
        """`enter` for the routes that show or change all of a tenant's data.

        Raises:
            ForbiddenError: ``role_required``: the session of a user who may not.
        """
        entered = await self.enter(headers, path_tenant, ticket=ticket)
        session = entered[0].session
        if session is not None and session.user.role not in self._sql_roles:
            raise role_required(self._sql_roles)
        return entered

    async def visit(self, headers: Headers, path_tenant: str | None) -> TenantT:
        """The tenant that anybody names, as far as there is one: for signing up and logging in.
        The admin token creates it, as elsewhere; any other is not looked at.

        Raises: as `tenant`.
        """
        principal = NOBODY
        value = headers.get(b"authorization", b"")
        if hmac.compare_digest(_digest(value.partition(b" ")[2].strip()), self._admin_digest):
            principal = ADMIN
        return await self.tenant(principal, headers, path_tenant)

    def follow_sql(
        self, principal: Principal, tenant: TenantT
    ) -> Callable[[], bool | Awaitable[bool]]:
        """For a stream behind `enter_sql`: whether the principal may still read it."""
        return self._follow(principal, tenant, self._sql_roles)

    def _follow(
        self, principal: Principal, tenant: TenantT, roles: frozenset[str] | None
    ) -> Callable[[], bool | Awaitable[bool]]:
        if principal.session is not None and self._sessions is not None:
            return self._sessions.follow(tenant, principal.session, roles)
        if principal.kind == "tenant":
            return lambda: self._tokens.check(principal.token) is not None
        return lambda: True

    async def _session(
        self, headers: Headers, path_tenant: str | None, credentials: bytes
    ) -> tuple[TenantT, Session]:
        name = self.tenant_name(headers, path_tenant)
        try:
            tenant = self._tenants.get(name)
        except NotFoundError:
            raise _invalid_token() from None
        session = await self._sessions.check(tenant, credentials) if self._sessions else None
        if session is None:
            raise _invalid_token()
        return tenant, session

    async def _enter_with_ticket(
        self, headers: Headers, path_tenant: str | None, ticket: str
    ) -> tuple[Principal, TenantT]:
        name = self.tenant_name(headers, path_tenant)
        principal = self._tickets.redeem(ticket, name) if self._tickets is not None else None
        if principal is None:
            raise _invalid_token()
        tenant = await self.tenant(principal, headers, path_tenant)
        valid = self._follow(principal, tenant, None)()
        if not (valid if isinstance(valid, bool) else await valid):
            raise _invalid_token()
        return principal, tenant

    def authenticate(self, headers: Headers) -> Principal:
        """Whose token this is. A session's is none here: only its tenant knows it.

        Raises:
            AuthenticationError: ``missing_token``, or ``invalid_token`` for whatever reason:
                unknown, expired and revoked are not told apart.
        """
        return self._authenticate(bearer(headers))

    def _authenticate(self, credentials: bytes) -> Principal:
        if hmac.compare_digest(_digest(credentials), self._admin_digest):
            return ADMIN
        text = credentials.decode() if credentials.isascii() else ""
        token = self._tokens.check(text)
        if token is None:
            raise _invalid_token()
        return Principal("tenant", token.tenant, token.read_only, token=text)

    def authenticate_admin(self, headers: Headers) -> Principal:
        """As `authenticate`; ForbiddenError for a valid token that is not the admin token."""
        principal = self.authenticate(headers)
        if principal.kind != "admin":
            raise ForbiddenError("This needs the admin token.", code="forbidden")
        return principal

    async def tenant(
        self, principal: Principal, headers: Headers, path_tenant: str | None
    ) -> TenantT:
        """The tenant that the request names, if the principal may reach it.

        Raises:
            InvalidRequestError: ``tenant_required``, ``tenant_conflict``,
                ``invalid_tenant_name``.
            NotFoundError: ``tenant_not_found``.
        """
        name = self.tenant_name(headers, path_tenant)
        if principal.tenant is not None and principal.tenant != name:
            check_tenant_name(name)
            raise tenant_not_found(name)
        try:
            return self._tenants.get(name)
        except NotFoundError:
            check_tenant_name(name)
            if principal.kind != "admin" or not self._create_tenants:
                raise tenant_not_found(name) from None
        return await self._tenants.ensure(name)

    def tenant_name(self, headers: Headers, path_tenant: str | None) -> str:
        """The name that path, X-Tenant-ID and host agree on; not yet checked for its shape.

        Raises:
            InvalidRequestError: ``tenant_required``, ``tenant_conflict``.
        """
        name = path_tenant
        value = headers.get(b"x-tenant-id")
        if value is not None:
            if b"," in value:
                raise _conflict("More than one X-Tenant-ID header was sent.")
            named = value.decode("latin-1").strip(" \t")
            if name is not None and named != name:
                raise _conflict("The path and X-Tenant-ID name different tenants.")
            name = named
        if self._host_suffix is not None:
            label = self._host_label(headers.get(b"host", b""))
            if label is not None:
                if name is not None and label != name:
                    raise _conflict("The host name and the request name different tenants.")
                name = label
        if name is None:
            name = self._default_tenant
        if name is None:
            raise InvalidRequestError(
                "Name the tenant: by the path /t/{tenant}/... or the header X-Tenant-ID.",
                code="tenant_required",
            )
        return name

    def _host_label(self, value: bytes) -> str | None:
        """The one label below the base domain; None for any other host."""
        if b"," in value:
            raise _conflict("More than one Host header was sent.")
        host = value.decode("latin-1").lower()
        if not host.startswith("["):  # an IPv6 address has no labels
            host = host.partition(":")[0].removesuffix(".")
        assert self._host_suffix is not None
        if not host.endswith(self._host_suffix):
            return None
        label = host[: -len(self._host_suffix)]
        return None if not label or "." in label or label in _NOT_TENANTS else label


def tenant_not_found(name: str) -> NotFoundError:
    """The same answer for a tenant that does not exist and for one that is none of the caller's."""
    return NotFoundError(f"There is no tenant {name!r}.", code="tenant_not_found")


def _conflict(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, code="tenant_conflict")


def bearer(headers: Headers) -> bytes:
    """The token of a request. Raises AuthenticationError (``missing_token``)."""
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        raise AuthenticationError("Missing authorization header", code="missing_token")
    return credentials.strip()


def role_required(roles: frozenset[str]) -> ForbiddenError:
    """For the session of a user who has none of the roles."""
    return ForbiddenError(
        f"Requires one of roles: {', '.join(sorted(roles))}", code="role_required"
    )


def _invalid_token() -> AuthenticationError:
    return AuthenticationError("Invalid or expired token", code="invalid_token")


def _digest(credentials: bytes) -> bytes:
    return hashlib.sha256(credentials).digest()
