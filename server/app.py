"""The application: all routes, listed once, and what they are given."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Router, asgi
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.handlers import ASGIRouteHandler
from litestar.plugins import PluginProtocol

from server.asgi import ASGIApp
from server.auth import Auth
from server.components import Components
from server.direct import Direct
from server.guards import json, make_guards, require_role, writer
from server.openapi import build_document
from server.replies import answer_error
from server.reply_headers import EXPOSED
from server.routes.admin import JSON_ROUTES
from server.routes.auth import OPEN_ROUTES, ROLE_ROUTES, SESSION_ROUTES, USER_ROUTES
from server.routes.branches import BRANCH_ROUTES
from server.routes.files import FILE_ROUTES
from server.routes.health import health, live, ready
from server.routes.metrics import metrics
from server.routes.objects import OBJECT_ROUTES
from server.routes.restore import RESTORE_ROUTES
from server.routes.schema import schema_router
from server.routes.snapshots import SNAPSHOT_ROUTES
from server.routes.transactions import TRANSACTION_ROUTES

VERSION = "0.1.0"


class _Application(Litestar):
    """Litestar without the plugins for pydantic and attrs: nothing here uses them, and importing
    them would double the time to the first answer."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        from litestar.plugins.core import MsgspecDIPlugin

        return [*plugins, MsgspecDIPlugin()]


def create_app(
    components: Components, auth: Auth, direct: Direct, cors_origins: tuple[str, ...] = ()
) -> Litestar:
    """The application inside the edge. It has the ``direct`` routes too, for browsers."""
    guards = make_guards(components.gate)
    routes: list[Any] = [
        live,
        ready,
        health,
        Router("/", route_handlers=[metrics], guards=[guards.admin]),
        Router("/admin", route_handlers=FILE_ROUTES, guards=[guards.admin]),
        Router(
            "/admin",
            route_handlers=[
                *JSON_ROUTES,
                *OBJECT_ROUTES,
                *RESTORE_ROUTES,
                *SNAPSHOT_ROUTES,
                *BRANCH_ROUTES,
            ],
            guards=[json, guards.admin],
        ),
        Router("/", route_handlers=TRANSACTION_ROUTES, guards=[json, guards.tenant, writer]),
    ]
    if direct.auth:
        routes += [
            Router("/", route_handlers=OPEN_ROUTES, guards=[json]),
            Router("/", route_handlers=SESSION_ROUTES, guards=[json, guards.user]),
            Router("/", route_handlers=USER_ROUTES, guards=[guards.user, require_role("admin")]),
            Router("/admin", route_handlers=ROLE_ROUTES, guards=[json, guards.admin]),
        ]
    return _Application(
        [
            *routes,
            *(_mounted(path, route) for path, route in direct.exact.items() if path != "/live"),
            *(_mounted(f"/{path}", route, below=True) for path, route in direct.below.items()),
            schema_router(lambda: build_document(routes, VERSION)),
        ],
        dependencies={
            "auth": Provide(lambda: auth, sync_to_thread=False),
            "components": Provide(lambda: components, sync_to_thread=False),
        },
        exception_handlers={Exception: answer_error},
        cors_config=_cors(cors_origins),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # the edge sees to it
    )


def _mounted(path: str, route: ASGIApp, *, below: bool = False) -> ASGIRouteHandler:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await route(scope, receive, send)

    return asgi(path, copy_scope=False, is_mount=below)(handle)


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Tenant-ID"],
        expose_headers=[str(name) for name in EXPOSED.split(", ")],
        max_age=600,
    )
