"""RequestContext: what is known of the request under way, typed; it travels in the ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from dosql.host.tenant import Tenant
    from server.gate import Principal

SCOPE_KEY = "dosql"
UNMATCHED = "unmatched"
"""The route of a request that matched none."""


class RequestContext(msgspec.Struct):
    """Made by the edge, filled in by the gate and the routes, read by the access log."""

    request_id: str
    headers: dict[bytes, bytes]
    """Lower-case names; several headers of one name are joined by a comma."""
    path_tenant: str | None = None
    """The tenant in the path's prefix."""
    route: str = UNMATCHED
    """The template of the route, never the path itself."""
    status: int = 0
    """0 until the reply begins."""
    principal: Principal | None = None
    """Whose token it is."""
    tenant: Tenant | None = None
    """Whose database it is."""
    namespace: str | None = None
    """Of the durable object that the request means."""
    object: str | None = None
    """Its name; its id if it was addressed by that."""
    from_app: bool = False
    """The reply is a program's own, and so are its headers."""
    error: BaseException | None = None
    """What the reply is an error for."""
    code: str | None = None
    """The code of that error."""
    extra_headers: tuple[tuple[bytes, bytes], ...] = ()
    """What every reply to it has beside its own."""


def context_of(scope: Mapping[str, Any]) -> RequestContext:
    """The context of the request with this ASGI scope."""
    return cast("RequestContext", scope[SCOPE_KEY])
