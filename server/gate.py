"""Gate: who asks, and for which tenant. It knows bytes and text, no framework.

Every way into an object passes here, so no rule about tokens and tenant names stands elsewhere.

- Authentication comes first: without a valid token nothing is learned, not even whether a name
  would do.
- A tenant token reaches its own tenant only. Any other name is ``tenant_not_found``, whether that
  tenant exists or not, and touches no disk.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from dosql.errors import (
    AuthenticationError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)
from dosql.host.names import check_tenant_name
from dosql.limits import RESERVED_TENANT_NAMES

Headers = Mapping[bytes, bytes]
"""Lower-case names; several headers of one name joined by a comma, as RFC 9110 has it."""

_NOT_TENANTS = RESERVED_TENANT_NAMES | {"www"}
"""First labels of a host name that mean the server itself."""

TenantT_co = TypeVar("TenantT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a token speaks for."""

    kind: Literal["admin", "tenant"]
    tenant: str | None = None
    """The only tenant it reaches; None: every tenant."""
    read_only: bool = False


ADMIN = Principal("admin")


class KnownToken(Protocol):
    """What the gate needs to know of a tenant token."""

    @property
    def tenant(self) -> str: ...
    @property
    def read_only(self) -> bool: ...


class TokenCheck(Protocol):
    """Where tenant tokens are known."""

    def check(self, token: str, /) -> KnownToken | None: ...


class TenantLookup(Protocol[TenantT_co]):
    """Where tenants are known."""

    def get(self, name: str, /) -> TenantT_co: ...
    async def ensure(self, name: str, /) -> TenantT_co: ...


class Gate(Generic[TenantT_co]):
    """Decides on tokens and tenant names. Its methods raise the error that the client gets."""

    def __init__(
        self,
        *,
        admin_token: str,
        tokens: TokenCheck,
        tenants: TenantLookup[TenantT_co],
        default_tenant: str | None = None,
        create_tenants: bool = True,
        base_domain: str | None = None,
    ) -> None:
        self._admin_digest = hashlib.sha256(admin_token.encode()).digest()
        self._tokens = tokens
        self._tenants = tenants
        self._default_tenant = default_tenant
        self._create_tenants = create_tenants
        self._host_suffix = None if base_domain is None else "." + base_domain.lower().strip(".")

    def authenticate(self, headers: Headers) -> Principal:
        """Whose token this is.

        Raises:
            AuthenticationError: ``missing_token``, or ``invalid_token`` for whatever reason:
                unknown, expired and revoked are not told apart.
        """
        value = headers.get(b"authorization")
        if not value:
            raise AuthenticationError("Missing authorization header", code="missing_token")
        scheme, _, credentials = value.partition(b" ")
        if scheme.lower() != b"bearer":
            raise AuthenticationError("Missing authorization header", code="missing_token")
        credentials = credentials.strip()
        if hmac.compare_digest(hashlib.sha256(credentials).digest(), self._admin_digest):
            return ADMIN
        token = self._tokens.check(credentials.decode()) if credentials.isascii() else None
        if token is None:
            raise AuthenticationError("Invalid or expired token", code="invalid_token")
        return Principal("tenant", token.tenant, token.read_only)

    def authenticate_admin(self, headers: Headers) -> Principal:
        """As `authenticate`; ForbiddenError for a valid token that is not the admin token."""
        principal = self.authenticate(headers)
        if principal.kind != "admin":
            raise ForbiddenError("This needs the admin token.", code="forbidden")
        return principal

    async def tenant(
        self, principal: Principal, headers: Headers, path_tenant: str | None
    ) -> TenantT_co:
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
