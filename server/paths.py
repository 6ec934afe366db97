"""Paths: which are the server's own, which are a tenant's, and which are pages."""

from __future__ import annotations

from server.asgi import Scope
from server.context import RequestContext

OWN_SEGMENTS = frozenset(
    {
        "admin",
        "api",
        "auth",
        "changes",
        "health",
        "live",
        "metrics",
        "objects",
        "query",
        "queryOne",
        "ready",
        "rpc",
        "run",
        "schema",
        "t",
        "transaction",
        "transactions",
    }
)
"""First segments of the paths that are the server's; all others are the app's, if there is one."""
TENANT_ROUTES = frozenset(
    {"api", "auth", "changes", "query", "queryOne", "run", "transaction", "transactions"}
)
"""First segments of the paths that also exist below ``/t/{tenant}``."""
USERS = "/api/v1/users"
TENANT_PREFIX = "/t/{tenant}"
ADMIN_SEGMENTS = frozenset({"admin", "metrics"})
"""First segments of the paths that an admin listener, if there is one, has to itself."""
PAGES = "/schema"
"""Only below this path are there pages, which load scripts and styles."""


def take_tenant(scope: Scope, context: RequestContext, path: str) -> None:
    """``/t/{tenant}/query`` becomes ``/query``; only routes of tenants have that prefix."""
    _, _, tenant, rest = path.split("/", 3) if path.count("/") > 2 else ("", "", "", "")
    if rest.partition("/")[0] in TENANT_ROUTES:
        context.path_tenant = tenant
        scope["path"] = "/" + rest
