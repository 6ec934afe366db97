"""From settings to a running server, and from SIGTERM to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode

import uvicorn
import uvloop

from dosql.clock import Randomness, SystemClock, SystemRandomness
from dosql.errors import DosqlError
from dosql.host.changes import ChangeSettings
from dosql.host.cold_tier import ColdTierSettings
from dosql.host.host import Host, HostSettings
from dosql.host.rate_limits import RateLimits
from dosql.host.sessions import Sessions, SessionSettings
from dosql.limits import SWITCH_INTERVAL_S
from dosql.replica.bucket_url import open_bucket
from dosql.replica.probe import probe
from dosql.replica.retention import RetentionSettings
from dosql.sqlite.change_log import Retention
from dosql.sqlite.database import DatabaseLimits
from dosql.sqlite.migrations import load_migrations
from server.access_log import AccessLog
from server.admin_token import FILE_NAME, AdminToken, load_admin_token
from server.asgi import ASGIApp
from server.auth import Auth
from server.auth_attempts import Attempts
from server.auth_passwords import Passwords
from server.auth_tickets import Tickets
from server.auth_watch import Watches
from server.change_routes import ChangeRoutes
from server.client_address import ClientAddress
from server.components import Components
from server.edge import Direct, Edge, live
from server.gate import Gate
from server.lazy import LazyApp
from server.listen import Listens, arrives_at, url_of
from server.log_writer import JsonHandler, LogWriter
from server.metrics import Metrics
from server.protocol import close_stalled, protocol_class
from server.rate_limiter import RateLimiter, open_limiter
from server.settings import Settings, load_settings, unknown_variables
from server.sql_routes import sql_routes

if TYPE_CHECKING:
    from server.program import Program

_USAGE = 2
_FAILURE = 1
_LOAD_AFTER_S = 0.2
"""The first requests come before the framework is loaded, which would slow them down."""
_ACCEPTORS = 16
"""The event loop accepts one connection per listener and turn: with one listener, hundreds that
come together would wait for seconds while those accepted first are served."""
_KEEP_ALIVE_S = 75
"""Longer than the 60 s of usual proxies: they, not we, close idle connections."""


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
        cold = _cold_tier(settings, randomness)
        if cold is not None:
            stack.callback(cold.bucket.close)
        host = await Host.start(
            _host_settings(settings, cold),
            clock=clock,
            randomness=randomness,
            app=None if program is None else program.app,
        )
        stack.push_async_callback(host.close)
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
        auth = Auth(
            sessions,
            passwords,
            Attempts(clock),
            tickets,
            clock,
            ClientAddress(settings.trusted_proxies),
        )
        auth.is_signup_open = settings.signup == "open"
        components = Components(
            host, gate, clock, randomness, Metrics(), log, asyncio.Event(), auth, Watches()
        )
        exact: dict[str, ASGIApp] = {**sql_routes(gate), "/live": live}
        changes = ChangeRoutes(
            host.changes,
            gate,
            components.closing,
            watches=components.watches,
            origins=settings.cors_origins,
        )
        below = {"changes": changes}
        if program is None:
            direct = Direct(exact, below, auth=settings.auth == "on")
        else:
            direct = await program.open(components, exact, below, stack)
            direct = replace(direct, auth=settings.auth == "on")
        app = LazyApp(
            lambda: _load_app(components, direct, settings),
            on_failure=lambda: server.handle_exit(signal.SIGTERM, None),
        )
        limits = RateLimits(host.tenants, clock)
        limiter = open_limiter(settings, components, limits)
        edge = _edge(app, direct, components, settings, limiter, admin_listener)
        server = _Server(edge, components, settings, program)
        _announce(settings, url_of(listener), token, program, admin_listener)
        asyncio.get_running_loop().call_later(_LOAD_AFTER_S, app.start)
        tidying = asyncio.get_running_loop().create_task(limits.run())
        stack.callback(tidying.cancel)
        sockets = [listener, *(listener.dup() for _ in range(_ACCEPTORS - 1))]
        if admin_listener is not None:
            sockets.append(admin_listener)
        await server.serve(sockets=sockets)
        await app.ready()  # raises what kept it from being built


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
        body_limit=_body_limit(settings),
        limiter=limiter,
        cors_origins=settings.cors_origins,
        is_admin=None if admin_listener is None else arrives_at(admin_listener),
    )


def _load_app(components: Components, direct: Direct, settings: Settings) -> ASGIApp:
    from server.app import create_app  # half of the time that all imports take

    app = create_app(components, direct, cors_origins=settings.cors_origins)
    # What was made so far stays for good: looking through it again and again for garbage would
    # stall every request for tens of milliseconds.
    gc.freeze()
    return app


def _cold_tier(settings: Settings, randomness: Randomness) -> ColdTierSettings | None:
    """The bucket, tried out. Raises what is wrong with it."""
    if settings.bucket == "none":
        return None
    url = settings.bucket or (settings.data_dir.absolute() / "bucket").as_uri()
    bucket = open_bucket(url, endpoint=settings.s3_endpoint)
    directory = url.startswith("file:")
    if not directory:  # what a directory can do is known
        probe(bucket, randomness)
    return ColdTierSettings(
        bucket,
        directory=directory,
        durability=settings.durability,
        url_options=_url_options(settings.s3_endpoint) if not directory else "",
        retention=RetentionSettings(
            history_ms=round(settings.retention_days * 24 * 3600 * 1000),
            commits_ms=round(settings.l0_retention_hours * 3600 * 1000),
        ),
    )


def _url_options(endpoint: str | None) -> str:
    """What Litestream must know beside the URL of a bucket of S3."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options = {"region": region}
    if endpoint is not None:
        options = {"endpoint": endpoint, "forcePathStyle": "true", **options}
    return f"?{urlencode(options, safe=':/')}"


def _host_settings(settings: Settings, cold: ColdTierSettings | None) -> HostSettings:
    return HostSettings(
        cold=cold,
        data_dir=settings.data_dir,
        migrations=load_migrations(settings.migrations or default_migrations()),
        open_objects_max=settings.max_open,
        idle_seconds=settings.idle_seconds,
        inline_ms=settings.inline_ms,
        statement_ms=settings.statement_ms,
        transaction_idle_s=settings.transaction_idle_seconds,
        transaction_s=settings.transaction_seconds,
        log_bytes_max=settings.log_bytes_max,
        changes=ChangeSettings(
            settings.changes == "on",
            Retention(
                age_ms=int(settings.changes_seconds * 1000),
                size_bytes=settings.changes_bytes_max,
            ),
        ),
        limits=DatabaseLimits(
            settings.rows_max, settings.result_bytes_max, settings.database_bytes_max
        ),
    )


def default_migrations() -> Path:
    """The schema that comes with dosql: beside this package in a checkout, inside it installed."""
    here = Path(__file__).resolve().parent
    installed = here / "migrations"
    return installed if installed.is_dir() else here.parent / "migrations"


def _body_limit(settings: Settings) -> Callable[[str], int]:
    def limit(path: str) -> int:
        if path.startswith("/admin/tenants/") and path.endswith("/import"):
            return settings.database_bytes_max
        return settings.body_bytes_max

    return limit


def _plain_sockets(*args: Any, **kwargs: Any) -> asyncio.Protocol:
    """What speaks WebSocket without an app, loaded with the first who wants it: few do."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(*args, **kwargs)


class _Server(uvicorn.Server):
    """uvicorn, with our streams told to end when it shuts down, and a clean exit status."""

    def __init__(
        self, app: Edge, components: Components, settings: Settings, program: Program | None
    ) -> None:
        self._sockets = None if program is None else program.sweep
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws=_plain_sockets if program is None else program.socket_protocol(),  # type: ignore[arg-type]
                ws_max_size=settings.websocket_bytes_max,
                ws_per_message_deflate=False,
                http=protocol_class(
                    components.clock, components.randomness, has_app=program is not None
                ),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
            )
        )
        self._clock = components.clock
        self._closing = components.closing

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal begins the shutdown, a second one of SIGINT cuts it short."""
        loop = asyncio.get_running_loop()
        handled = (signal.SIGINT, signal.SIGTERM)
        for number in handled:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and close those that stall."""
        await super().startup(sockets)
        sweep = close_stalled(self.server_state.connections, self._clock)
        self._sweep = asyncio.get_running_loop().create_task(sweep)
        if self._sockets is not None:
            self._sockets.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let streams end, then wait for the requests under way."""
        self._sweep.cancel()
        if self._sockets is not None:
            self._sockets.stop()
        self._closing.set()
        await super().shutdown(sockets)


def _announce(
    settings: Settings,
    url: str,
    token: AdminToken,
    program: Program | None,
    admin_listener: socket.socket | None,
) -> None:
    """What a newcomer needs; the token only when it was just made."""
    shown = token.text if token.created else "$DOSQL_ADMIN_TOKEN"
    lines = [f"dosql listens on {url}", f"data directory: {settings.data_dir.resolve()}"]
    if token.created:
        lines.append(f"admin token:    {token.text}  (shown once; kept in {FILE_NAME} there)")
    elif settings.admin_token is None:
        shown = f"$(cat {settings.data_dir.resolve() / FILE_NAME})"
        lines.append(f"admin token:    in {settings.data_dir.resolve() / FILE_NAME}")
    if admin_listener is not None:
        lines.append(f"admin:          {url_of(admin_listener)}")
    if program is not None:
        lines.append(f"app:            {program}")
    lines += [
        "try:",
        f"  curl {url}/query -H 'X-Tenant-ID: acme' -H 'Content-Type: application/json' \\",
        f'    -H "Authorization: Bearer {shown}" -d \'{{"sql": "SELECT 1 AS one"}}\'',
    ]
    print("\n".join(lines), flush=True)
    for name in unknown_variables(os.environ):
        print(f"dosql: {name} is not a setting; is it misspelt?", file=sys.stderr)
