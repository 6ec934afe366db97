"""Prometheus metrics, for the admin token."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from server.components import Components
from server.metrics import CONTENT_TYPE


@get("/metrics", tags=["Administration"], media_type="text/plain", sync_to_thread=False)
def metrics(
    components: NamedDependency[Components],
) -> Response[bytes]:
    """All metrics in the Prometheus text format."""
    body = components.metrics.render(components.host.statistics(), components.log.dropped)
    return Response(body, headers={"Content-Type": CONTENT_TYPE})
