"""RateLimiter: asks the policies about a request before anything else of it is looked at.

A request that is refused costs no body, no token check but where a policy is about roles or users,
and writes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from dosql.errors import (
    DosqlError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    RequestError,
    UnavailableError,
)
from dosql.host.rate_limits import RateLimits
from dosql.host.tenant import Tenant
from dosql.host.tenants import Tenants
from dosql.objects.rate_rules import Rule, Verdict
from dosql.objects.rate_table import rate_key
from server.asgi import Scope
from server.client_address import ClientAddress
from server.components import Components
from server.context import RequestContext
from server.gate import Gate
from server.metrics import Metrics
from server.node_limits import NodeLimits
from server.rate_policies import Policy, first_part, parse_policies, plain_path
from server.settings import Settings


class Identity(msgspec.Struct, frozen=True):
    """Who sends a request, as far as limits are about it."""

    role: str
    user: str
    """What tells users of one role apart."""


Identify = Callable[[RequestContext], Awaitable[Identity | None]]
"""Whose valid token came with the request; None: none did."""


class _Limit(msgspec.Struct, frozen=True):
    policy: Policy
    rule: Rule
    base: str
    """Tells the keys of one version of a policy from all others."""

    def shown(self, verdict: Verdict) -> tuple[str, str]:
        """Its parts of RateLimit-Policy and RateLimit."""
        seconds = -(-self.rule.window_ms // 1_000)
        name = self.policy.name
        return (
            f'"{name}";q={self.rule.limit};w={seconds}',
            f'"{name}";r={verdict.remaining};t={verdict.reset_s}',
        )


class RateLimiter:
    """The policies of one server."""

    def __init__(
        self,
        policies: Sequence[Policy],
        *,
        gate: Gate[Tenant],
        tenants: Tenants,
        limits: RateLimits,
        node: NodeLimits,
        address: ClientAddress,
        identify: Identify,
        metrics: Metrics,
    ) -> None:
        self._limits = [_Limit(each, each.rule, f"{each.name}|{each.rule}") for each in policies]
        self.prefixes = tuple({first_part(route) for each in policies for route in each.routes})
        """What the paths that any policy is about begin with."""
        self._gate = gate
        self._tenants = tenants
        self._store = limits
        self._node = node
        self._address = address
        self._identify = identify
        self._metrics = metrics

    async def admit(self, scope: Scope, context: RequestContext) -> None:
        """Count the request. All its replies will tell what is left; every policy that it matches
        counts it, in their order, up to the first that refuses it.

        Raises:
            RateLimitedError: ``rate_limited``.
            UnavailableError: ``rate_limit_unavailable``: it cannot be counted, and a policy wants
                such requests refused.
        """
        path, method = plain_path(scope["path"]), scope.get("method", "GET")
        if method == "OPTIONS" and b"access-control-request-method" in context.headers:
            return  # a browser's question before the request, which is the one to count
        request = _Request(self._address, self._gate, self._tenants, self._identify, scope, context)
        found: list[tuple[_Limit, Verdict]] = []
        for limit in self._limits:
            route = limit.policy.route_of(path, method)
            if route is None:
                continue
            verdict = await self._hit(limit, request)
            if verdict is None:
                continue
            found.append((limit, verdict))
            context.extra_headers = _headers(found)
            if not verdict.allowed:
                context.route, context.tenant = route, request.tenant()
                raise RateLimitedError("Too many requests", retry_after_s=verdict.retry_after_s)

    async def _hit(self, limit: _Limit, request: _Request) -> Verdict | None:
        """None: the policy is not about this request after all, or lets it pass uncounted."""
        policy = limit.policy
        if policy.scope == "node":
            return self._node.hit(limit.rule, rate_key(limit.base, *await request.key(policy.key)))
        tenant = request.tenant()
        if tenant is None or (policy.tenants and tenant.name not in policy.tenants):
            return None
        try:
            if policy.roles:
                identity = await request.identity()
                if identity is None or identity.role not in policy.roles:
                    return None
            key = rate_key(limit.base, *await request.key(policy.key))
            return await self._store.hit(tenant, limit.rule, key)
        except NotFoundError:  # deleted a moment ago
            return None
        except DosqlError as error:
            self._metrics.rate_limit_failures += 1
            if policy.on_failure == "open":
                return None
            raise UnavailableError(
                "The request cannot be counted now, so it is refused.",
                code="rate_limit_unavailable",
                retry_after_s=1,
            ) from error


class _Request:
    """What limits want to know of one request, found out when first asked for."""

    def __init__(
        self,
        address: ClientAddress,
        gate: Gate[Tenant],
        tenants: Tenants,
        identify: Identify,
        scope: Scope,
        context: RequestContext,
    ) -> None:
        self._address = address
        self._gate = gate
        self._tenants = tenants
        self._identify = identify
        self._scope = scope
        self._context = context
        self._identity: Identity | None = None
        self._is_identified = False

    def tenant(self) -> Tenant | None:
        """The tenant that the request names; None for what the routes will refuse anyway."""
        context = self._context
        try:
            name = self._gate.tenant_name(context.headers, context.path_tenant)
            return self._tenants.get(name)
        except (InvalidRequestError, NotFoundError):
            return None

    async def identity(self) -> Identity | None:
        """Who sends it."""
        if not self._is_identified:
            self._is_identified = True
            self._identity = await self._identify(self._context)
        return self._identity

    async def key(self, kind: str) -> tuple[str, ...]:
        """What is counted by: of who cannot be told, the address."""
        headers = self._context.headers
        if kind == "tenant":
            return (kind,)
        if kind.startswith("header:"):
            value = headers.get(kind[7:].lower().encode())
            if value is not None:
                return (kind.lower(), value.decode("latin-1"))
        elif kind != "ip":
            identity = await self.identity()
            if identity is not None and kind == "user":
                return (kind, identity.role, identity.user)
            if identity is not None:
                return (kind, headers.get(b"authorization", b"").decode("latin-1"))
        peer = self._scope.get("client")
        return ("ip", self._address(peer, headers.get(b"x-forwarded-for")))


def open_limiter(
    settings: Settings, components: Components, limits: RateLimits
) -> RateLimiter | None:
    """The limiter of the settings; None if nothing is limited.

    Raises:
        InvalidRequestError: ``invalid_settings``.
    """
    policies = parse_policies(settings.rate_limits)
    if not policies:
        return None
    return RateLimiter(
        policies,
        gate=components.gate,
        tenants=components.host.tenants,
        limits=limits,
        node=NodeLimits(components.clock),
        address=ClientAddress(settings.trusted_proxies),
        identify=gate_identity(components.gate),
        metrics=components.metrics,
    )


def gate_identity(gate: Gate[Tenant]) -> Identify:
    """By the tokens that the gate knows: the role of a user, ``admin`` or ``tenant``."""

    async def identify(context: RequestContext) -> Identity | None:
        try:
            principal, _ = await gate.enter(context.headers, context.path_tenant)
        except RequestError:
            return None
        if principal.session is not None:
            return Identity(principal.session.user.role, str(principal.session.user.id))
        return Identity(principal.kind, principal.tenant or "")

    return identify


def _headers(found: Sequence[tuple[_Limit, Verdict]]) -> tuple[tuple[bytes, bytes], ...]:
    """``X-RateLimit-...`` of the policy with the least left; the draft's headers of all."""
    least = min((verdict for _, verdict in found), key=lambda each: each.remaining)
    policies, states = zip(*(limit.shown(verdict) for limit, verdict in found), strict=True)
    return (
        (b"x-ratelimit-limit", b"%d" % least.limit),
        (b"x-ratelimit-remaining", b"%d" % least.remaining),
        (b"x-ratelimit-reset", b"%d" % least.reset_s),
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(states).encode()),
    )
