"""Rate policies: which requests are limited, by what, and how the operator says so.

``DOSQL_RATE_LIMITS`` is a JSON list of policies, or ``none``; docs/rate-limits.md describes it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from dosql.errors import DosqlError, InvalidRequestError
from dosql.objects.rate_rules import Algorithm, Rule

NONE = "none"
_HEADER_KEY = re.compile(r"header:[A-Za-z0-9-]{1,64}", re.ASCII)
_KEYS = ("ip", "user", "token", "tenant")
_NODE_KEYS = ("ip",)

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Route = Annotated[str, msgspec.Meta(pattern=r"^/[^*?#]*\*?$")]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=31 * 24 * 3600)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Requests that match all of it have ``limit`` of them in ``window`` seconds for each key."""

    name: Name
    routes: tuple[Route, ...] = ("/api/*",)
    """Paths; with a ``*`` at the end all that begin so. Below ``/t/{tenant}`` the same."""
    methods: tuple[str, ...] = ()
    """None: all."""
    tenants: tuple[str, ...] = ()
    """None: all."""
    roles: tuple[str, ...] = ()
    """Whose requests; None: everybody's, also without a token."""
    limit: Count
    window: Seconds = 60.0
    burst: Count | None = None
    """For ``bucket`` and ``gcra``: what can be had at once; None: as many as ``limit``."""
    algorithm: Algorithm | None = None
    """None: ``sliding``, and ``gcra`` for the node."""
    key: str = "ip"
    """``ip``, ``user``, ``token``, ``tenant`` or ``header:Name``."""
    scope: Literal["tenant", "node"] = "tenant"
    """Where it is counted: in the tenant's database, or in the memory of this process, for
    requests of all tenants and of none."""
    on_failure: Literal["open", "closed"] = "open"
    """What happens to a request when its tenant's database cannot count it."""

    @property
    def rule(self) -> Rule:
        """Raises InvalidRequestError."""
        algorithm = self.algorithm or ("gcra" if self.scope == "node" else "sliding")
        return Rule(algorithm, self.limit, round(self.window * 1_000), self.burst or 0)

    def route_of(self, path: str, method: str) -> str | None:
        """Which of its routes such a request matches, whoever sends it; None: none.

        ``path`` is as `plain_path` gives it.
        """
        if self.methods and method not in self.methods:
            return None
        for route in self.routes:
            if path == route or (route.endswith("*") and path.startswith(route[:-1])):
                return route
        return None


DEFAULT = (Policy(name="default", limit=100),)
"""100 requests a minute for each address and tenant, on everything below ``/api/``."""


def plain_path(path: str) -> str:
    """As the router reads it: without empty segments, or a slash at its end."""
    return "/" + "/".join(part for part in path.split("/") if part)


def first_part(route: str) -> str:
    """What every path that matches the route begins with, empty segments or not."""
    return "/" + route[1:].partition("/")[0].rstrip("*")


def parse_policies(text: str | None) -> tuple[Policy, ...]:
    """The policies of the setting; without one the default.

    Raises:
        InvalidRequestError: ``invalid_settings``, with what is wrong.
    """
    if text is None:
        return DEFAULT
    if text.strip() == NONE:
        return ()
    try:
        policies = msgspec.json.decode(text, type=tuple[Policy, ...])
    except msgspec.DecodeError as exc:
        raise _invalid(str(exc)) from None
    names: set[str] = set()
    for policy in policies:
        problem = _problem(policy)
        if policy.name in names:
            problem = "two policies have this name"
        if problem is not None:
            raise _invalid(f"{policy.name}: {problem}")
        names.add(policy.name)
    return policies


def _problem(policy: Policy) -> str | None:
    """What its fields cannot tell one by one."""
    try:
        algorithm = policy.rule.algorithm
    except DosqlError as error:
        return error.message
    allowed = _NODE_KEYS if policy.scope == "node" else _KEYS
    if policy.key not in allowed and not _HEADER_KEY.fullmatch(policy.key):
        return f"key must be {', '.join(allowed)} or header:Name"
    if policy.scope == "node":
        if policy.algorithm not in (None, "gcra"):
            return "in the node there is only gcra"
        if policy.tenants or policy.roles:
            return "the node counts before tenants and roles are known"
    if policy.burst is not None and algorithm not in ("bucket", "gcra"):
        return "burst is for bucket and gcra"
    return None


def _invalid(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"Settings: rate_limits: {what}.", code="invalid_settings")
