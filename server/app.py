"""The application: all routes, listed once, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Litestar, Router, asgi
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.handlers import ASGIRouteHandler
from litestar.plugins import PluginProtocol

from server.components import Components
from server.guards import json, make_guards, writer
from server.openapi import build_document
from server.replies import answer_error
from server.routes.admin import JSON_ROUTES
from server.routes.files import FILE_ROUTES
from server.routes.health import health, live, ready
from server.routes.metrics import metrics
from server.routes.schema import schema_router
from server.routes.transactions import TRANSACTION_ROUTES
from server.sql_routes import SqlRoute

VERSION = "0.1.0"


class _Application(Litestar):
    """Litestar without the plugins for pydantic and attrs: nothing here uses them, and importing
    them would double the time to the first answer."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        from litestar.plugins.core import MsgspecDIPlugin

        return [*plugins, MsgspecDIPlugin()]


def create_app(
    components: Components, sql: Mapping[str, SqlRoute], *, cors_origins: tuple[str, ...] = ()
) -> Litestar:
    """The application inside the edge."""
    guards = make_guards(components.gate)
    routes: list[Any] = [
        live,
        ready,
        health,
        Router("/", route_handlers=[metrics], guards=[guards.admin]),
        Router("/admin", route_handlers=FILE_ROUTES, guards=[guards.admin]),
        Router("/admin", route_handlers=JSON_ROUTES, guards=[json, guards.admin]),
        Router("/", route_handlers=TRANSACTION_ROUTES, guards=[json, guards.tenant, writer]),
    ]
    return _Application(
        [
            *routes,
            *map(_mounted, sql, sql.values()),
            schema_router(lambda: build_document(routes, VERSION)),
        ],
        dependencies={"components": Provide(lambda: components, sync_to_thread=False)},
        exception_handlers={Exception: answer_error},
        cors_config=_cors(cors_origins),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # the edge sees to it
    )


def _mounted(path: str, route: SqlRoute) -> ASGIRouteHandler:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        await route(scope, receive, send)

    return asgi(path, copy_scope=False)(handle)


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Tenant-ID"],
        expose_headers=["Dosql-Bookmark", "Idempotent-Replayed", "Retry-After", "X-Request-ID"],
        max_age=600,
    )
