"""Components: what the routes work with, made once at the start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dosql.clock import Clock, Randomness
from dosql.host.host import Host
from dosql.host.tenant import Tenant
from server.auth import Auth
from server.auth_watch import Watches
from server.gate import Gate
from server.log_writer import LogWriter
from server.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Components:
    """Everything with an effect; plain numbers are settings."""

    host: Host
    gate: Gate[Tenant]
    clock: Clock
    randomness: Randomness
    metrics: Metrics
    log: LogWriter
    closing: asyncio.Event
    """Set when the server begins to shut down: streams end."""
    auth: Auth
    watches: Watches
    """Streams that end when their principal may not read them any more."""
