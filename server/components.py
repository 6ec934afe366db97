"""Components: what the routes work with, made once at the start."""

from __future__ import annotations

import asyncio

import msgspec

from dosql.clock import Clock, Randomness
from dosql.host.host import Host
from dosql.host.sessions import Sessions
from dosql.host.tenant import Tenant
from server.auth_passwords import Passwords
from server.auth_tickets import Tickets
from server.auth_watch import Watches
from server.gate import Gate
from server.log_writer import LogWriter
from server.metrics import Metrics


class Components(msgspec.Struct, frozen=True):
    """Everything with an effect; plain numbers are settings."""

    host: Host
    gate: Gate[Tenant]
    clock: Clock
    randomness: Randomness
    metrics: Metrics
    log: LogWriter
    closing: asyncio.Event
    """Set when the server begins to shut down: streams end."""
    sessions: Sessions
    passwords: Passwords
    tickets: Tickets
    watches: Watches
    """Streams that end when their principal may not read them any more."""
