"""Health routes: what a supervisor and a load balancer ask, without token or tenant."""

from __future__ import annotations

import re

from tests.support.server import ServerProcess


def test_seed_2_35_health_is_healthy_with_a_timestamp(shared_server: ServerProcess) -> None:
    reply = shared_server.request("GET", "/health", token=None)
    assert reply.status == 200
    body = reply.json()
    assert body["status"] == "healthy"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])


def test_live_and_ready_answer_without_a_token(shared_server: ServerProcess) -> None:
    for path, status in (("/live", "alive"), ("/ready", "ready")):
        reply = shared_server.request("GET", path, token=None)
        assert (reply.status, reply.json()) == (200, {"status": status})


def test_health_creates_no_tenant(server: ServerProcess) -> None:
    """A scanner that asks for anything must not bring databases into being."""
    for path in ("/health", "/live", "/ready", "/nope", "/t/acme/nope"):
        server.request("GET", path, token=None, tenant="acme")
    assert server.request("GET", "/admin/tenants").json() == {"tenants": [], "cursor": None}
