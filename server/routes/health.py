"""Is it alive, is it ready, is it well: no token, no tenant."""

from __future__ import annotations

from typing import cast

from litestar import Response, get
from litestar.di import NamedDependency

from dosql.clock import iso_from_ms
from dosql.errors import DosqlError
from dosql.wire.failure import ErrorReply
from server.components import Components
from server.context import context_of
from server.error_responses import error_reply
from server.replies import AnyRequest


class Unfit(ErrorReply, kw_only=True):
    """Why it cannot serve: the body of any error, and the word that a sound server has there."""

    status: str


@get("/live", tags=["Health"], sync_to_thread=False)
def live() -> dict[str, str]:
    """The process answers. Restart it when it does not."""
    return {"status": "alive"}


@get("/ready", tags=["Health"])
async def ready(
    request: AnyRequest, components: NamedDependency[Components]
) -> Response[dict[str, str]]:
    """200 when requests can be served, 503 at the start, at the end, and after a failed disk."""
    try:
        await components.host.check()
    except DosqlError as error:
        return _unfit(request, error, "not ready")
    return Response({"status": "ready"})


@get("/health", tags=["Health"])
async def health(
    request: AnyRequest, components: NamedDependency[Components]
) -> Response[dict[str, str]]:
    """As `/ready`, with the time; it runs a statement on the catalog, on no tenant's database."""
    try:
        await components.host.check()
    except DosqlError as error:
        return _unfit(request, error, "unhealthy")
    return Response({"status": "healthy", "timestamp": iso_from_ms(components.clock.now_ms())})


def _unfit(request: AnyRequest, error: DosqlError, status: str) -> Response[dict[str, str]]:
    """Always 503: who asks wants to know whether to send requests here."""
    context = context_of(request.scope)
    _, _, headers = error_reply(error, context)
    body = Unfit(
        status=status,
        error=error.message,
        code=error.code,
        request_id=context.request_id,
        retryable=error.retryable,
    )
    named = {name.decode(): value.decode() for name, value in headers}
    return cast("Response[dict[str, str]]", Response(body, status_code=503, headers=named))
