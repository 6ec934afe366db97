"""Is it alive, is it ready, is it well: no token, no tenant."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from dosql.clock import iso_from_ms
from dosql.errors import DosqlError
from server.components import Components


@get("/live", tags=["Health"], sync_to_thread=False)
def live() -> dict[str, str]:
    """The process answers. Restart it when it does not."""
    return {"status": "alive"}


@get("/ready", tags=["Health"])
async def ready(components: NamedDependency[Components]) -> Response[dict[str, str]]:
    """200 when requests can be served, 503 at the start, at the end, and after a failed disk."""
    try:
        await components.host.check()
    except DosqlError as error:
        return Response({"status": "not ready", "error": error.message}, status_code=503)
    return Response({"status": "ready"})


@get("/health", tags=["Health"])
async def health(components: NamedDependency[Components]) -> Response[dict[str, str]]:
    """As `/ready`, with the time; it runs a statement on the catalog, on no tenant's database."""
    try:
        await components.host.check()
    except DosqlError as error:
        return Response({"status": "unhealthy", "error": error.message}, status_code=503)
    return Response({"status": "healthy", "timestamp": iso_from_ms(components.clock.now_ms())})
