"""From settings to a running server, and from SIGTERM to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import msgspec
import uvloop

from dosql.clock import SystemClock, SystemRandomness
from dosql.errors import DosqlError
from dosql.host.host import Host
from dosql.host.rate_limits import RateLimits
from dosql.host.sessions import Sessions, SessionSettings
from dosql.limits import SWITCH_INTERVAL_S
from server.access_log import AccessLog
from server.admin_token import AdminToken, load_admin_token
from server.announcement import announce
from server.asgi import ASGIApp
from server.auth_passwords import Passwords
from server.auth_tickets import Tickets
from server.auth_watch import Watches
from server.change_routes import ChangeRoutes
from server.components import Components
from server.direct import Direct, live
from server.edge import Edge
from server.gate import Gate
from server.host_settings import cold_tier, host_settings
from server.http_server import HttpServer
from server.lazy import LazyApp
from server.listen import Listens, arrives_at, url_of
from server.log_writer import JsonHandler, LogWriter
from server.metrics import Metrics
from server.rate_limiter import RateLimiter, open_limiter
from server.settings import Settings, load_settings
from server.sql_routes import sql_routes

if TYPE_CHECKING:
    from server.auth import Auth
    from server.program import Program

_USAGE = 2
_FAILURE = 1
_LOAD_AFTER_S = 0.2
"""The first requests come before the framework is loaded, which would slow them down."""
_ACCEPTORS = 16
"""The event loop accepts one connection per listener and turn: with one listener, hundreds that
come together would wait for seconds while those accepted first are served."""


def serve(overrides: Mapping[str, object]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way and return.

    Raises:
        SystemExit: 2 for wrong settings, 1 when the server cannot start; the reason is on stderr.
    """
    try:
        settings = load_settings(overrides, os.environ)
        listens = Listens.parse(settings.listen, settings.admin_listen)
    except DosqlError as error:
        _give_up(error, _USAGE)
    program = _load_program(settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    log = LogWriter()
    logging.basicConfig(
        handlers=[JsonHandler(log, SystemClock())], level=settings.log_level.upper(), force=True
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, listens, program, log))
    except DosqlError as error:
        _give_up(error, _FAILURE)
    finally:
        log.close()


def _give_up(error: DosqlError, status: int) -> NoReturn:
    print(f"dosql: {error.message} ({error.code})", file=sys.stderr)
    raise SystemExit(status)


def _load_program(settings: Settings) -> Program | None:
    """None without an app. Exits with 2 if there is one and it cannot run."""
    if settings.app is None:
        return None
    from server.program import Program  # with all about WebSockets

    try:
        return Program(settings.app, settings)
    except DosqlError as error:
        _give_up(error, _USAGE)


async def _serve(
    settings: Settings, listens: Listens, program: Program | None, log: LogWriter
) -> None:
    clock, randomness = SystemClock(), SystemRandomness()
    token = load_admin_token(
        settings.admin_token, settings.data_dir, randomness, may_create=listens.is_loopback
    )
    listener, admin_listener = listens.bind()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(listener)
        if admin_listener is not None:
            stack.enter_context(admin_listener)
        cold = cold_tier(settings, randomness)
        if cold is not None:
            stack.callback(cold.bucket.close)
        host = await Host.start(
            host_settings(settings, cold),
            clock=clock,
            randomness=randomness,
            app=None if program is None else program.app,
        )
        stack.push_async_callback(host.close)
        components = _components(settings, host, token, log, stack)
        direct = await _direct(settings, components, program, stack)
        app = LazyApp(
            lambda: _load_app(components, direct, settings),
            on_failure=lambda: server.handle_exit(signal.SIGTERM, None),
        )
        limits = RateLimits(host.tenants, clock)
        limiter = open_limiter(settings, components, limits)
        edge = _edge(app, direct, components, settings, limiter, admin_listener)
        server = HttpServer(edge, components, settings, program)
        announce(settings, url_of(listener), token, program, admin_listener)
        loop = asyncio.get_running_loop()
        loop.call_later(_LOAD_AFTER_S, app.start)
        stack.callback(loop.create_task(limits.run()).cancel)
        sockets = [listener, *(listener.dup() for _ in range(_ACCEPTORS - 1))]
        if admin_listener is not None:
            sockets.append(admin_listener)
        await server.serve(sockets=sockets)
        await app.ready()  # raises what kept it from being built


def _components(
    settings: Settings,
    host: Host,
    token: AdminToken,
    log: LogWriter,
    stack: contextlib.AsyncExitStack,
) -> Components:
    clock, randomness = SystemClock(), SystemRandomness()
    lives = SessionSettings.of(settings.session_seconds, settings.session_idle_seconds)
    sessions = Sessions(host.tenants, lives, clock, randomness)
    tickets = Tickets(clock, randomness)
    gate = Gate(
        admin_token=token.text,
        tokens=host.tokens,
        tenants=host.tenants,
        sessions=sessions if settings.auth == "on" else None,
        tickets=tickets,
        sql_roles=frozenset(settings.sql_roles) - {"none"},
        default_tenant=settings.default_tenant,
        create_tenants=settings.tenant_creation == "auto",
        base_domain=settings.base_domain,
    )
    passwords = Passwords(randomness)
    stack.callback(passwords.close)
    return Components(
        host=host,
        gate=gate,
        clock=clock,
        randomness=randomness,
        metrics=Metrics(),
        log=log,
        closing=asyncio.Event(),
        sessions=sessions,
        passwords=passwords,
        tickets=tickets,
        watches=Watches(),
    )


async def _direct(
    settings: Settings,
    components: Components,
    program: Program | None,
    stack: contextlib.AsyncExitStack,
) -> Direct:
    exact: dict[str, ASGIApp] = {**sql_routes(components.gate), "/live": live}
    changes = ChangeRoutes(
        components.host.changes,
        components.gate,
        components.closing,
        watches=components.watches,
        origins=settings.cors_origins,
    )
    below = {"changes": changes}
    if program is None:
        return Direct(exact, below, auth=settings.auth == "on")
    direct = await program.open(components, exact, below, stack)
    return msgspec.structs.replace(direct, auth=settings.auth == "on")


def _edge(
    app: ASGIApp,
    direct: Direct,
    components: Components,
    settings: Settings,
    limiter: RateLimiter | None,
    admin_listener: socket.socket | None,
) -> Edge:
    return Edge(
        app,
        direct=direct,
        access_log=AccessLog(components.log, components.clock, settings.log_level),
        metrics=components.metrics,
        clock=components.clock,
        randomness=components.randomness,
        body_limit=settings.body_limit,
        limiter=limiter,
        cors_origins=settings.cors_origins,
        is_admin=None if admin_listener is None else arrives_at(admin_listener),
    )


def _auth(components: Components, settings: Settings) -> Auth:
    from server.auth import Auth  # only routes of the framework need it
    from server.auth_attempts import Attempts
    from server.client_address import ClientAddress

    auth = Auth(
        components.sessions,
        components.passwords,
        Attempts(components.clock),
        components.tickets,
        components.clock,
        ClientAddress(settings.trusted_proxies),
    )
    auth.is_signup_open = settings.signup == "open"
    return auth


def _load_app(components: Components, direct: Direct, settings: Settings) -> ASGIApp:
    from server.app import create_app  # half of the time that all imports take

    app = create_app(components, _auth(components, settings), direct, settings.cors_origins)
    # What was made so far stays for good: looking through it again and again for garbage would
    # stall every request for tens of milliseconds.
    gc.freeze()
    return app
