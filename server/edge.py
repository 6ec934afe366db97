"""Edge: the outermost layer of every request, plain ASGI.

What holds for every reply, whatever route or error made it, is done here: the request id, the
security headers, the size and encoding of bodies, the access log, the metrics, and an error body
for every exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dosql.clock import Clock, Randomness
from dosql.errors import NotFoundError, RequestError
from dosql.limits import REQUEST_ID_PATTERN
from server.access_log import AccessLog
from server.asgi import (
    DRAIN_FACTOR,
    JSON_TYPE,
    ASGIApp,
    ClientGone,
    Message,
    Receive,
    Scope,
    Send,
    body_too_large,
    counted,
    drain,
    send_json,
)
from server.context import SCOPE_KEY, RequestContext
from server.error_responses import MethodNotAllowed, error_reply
from server.metrics import Metrics
from server.rate_limiter import RateLimiter

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN.encode(), re.ASCII)
_COMMON_HEADERS: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_PAGE_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
)
_API_HEADERS = [*_COMMON_HEADERS, _API_POLICY]
_PAGE_HEADERS = [*_COMMON_HEADERS, _PAGE_POLICY]
_APP_HEADERS = [_COMMON_HEADERS[0]]
"""What a program's own replies get: its pages may be framed, and load what they like."""
OWN_SEGMENTS = frozenset(
    {
        "admin",
        "api",
        "auth",
        "changes",
        "health",
        "live",
        "metrics",
        "objects",
        "query",
        "queryOne",
        "ready",
        "rpc",
        "run",
        "schema",
        "t",
        "transaction",
        "transactions",
    }
)
"""First segments of the paths that are the server's; all others are the app's, if there is one."""
TENANT_ROUTES = frozenset(
    {"api", "auth", "changes", "query", "queryOne", "run", "transaction", "transactions"}
)
"""First segments of the paths that also exist below ``/t/{tenant}``."""
USERS = "/api/v1/users"
TENANT_PREFIX = "/t/{tenant}"
ADMIN_SEGMENTS = frozenset({"admin", "metrics"})
"""First segments of the paths that an admin listener, if there is one, has to itself."""
EXPOSED = ", ".join(
    [
        "Dosql-Bookmark",
        "Idempotent-Replayed",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "X-Request-ID",
    ]
)
"""What pages of a listed origin may read of a reply's headers."""
PAGES = "/schema"
"""Only below this path are there pages, which load scripts and styles."""


@dataclass(frozen=True, slots=True)
class Direct:
    """The routes that the edge calls itself, without the framework in between."""

    exact: Mapping[str, ASGIApp]
    """By path. With a browser's Origin they go through the framework, which has the CORS rules."""
    below: Mapping[str, ASGIApp] = field(default_factory=dict[str, ASGIApp])
    """By the first segment of their paths; with Origin the same."""
    objects: ASGIApp | None = None
    """Everything below ``/objects/``; an object has its own rules for browsers."""
    door: ASGIApp | None = None
    """Every path that is not the server's."""
    auth: bool = True
    """Whether the server has routes for users, or leaves them to the app."""

    def is_own(self, path: str) -> bool:
        """Whether a path with a first segment of the server's is the server's after all. Below
        ``/api`` an app has all but the users."""
        if path.startswith("/rpc/"):
            return path.count("/") >= 4
        if path.startswith("/auth/") or path == USERS:
            return self.auth
        return not path.startswith("/api/")


class Edge:
    """Wraps the application. ``body_limit`` gives the bytes allowed for a path."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        direct: Direct,
        access_log: AccessLog,
        metrics: Metrics,
        clock: Clock,
        randomness: Randomness,
        body_limit: Callable[[str], int],
        limiter: RateLimiter | None = None,
        cors_origins: Collection[str] = (),
        is_admin: Callable[[Scope], bool] | None = None,
    ) -> None:
        """``is_admin``: whether a request came to the listener that alone has the admin's routes;
        None: there is no such listener."""
        self._app = app
        self._exact = direct.exact
        self._direct = direct
        self._access_log = access_log
        self._metrics = metrics
        self._monotonic = clock.monotonic
        self._random = randomness.token_bytes
        self._body_limit = body_limit
        self._limiter = limiter
        self._limited = () if limiter is None else limiter.prefixes
        self._cors_origins = frozenset(origin.encode() for origin in cors_origins)
        self._is_admin = is_admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, from its headers to its line in the log. Raises nothing."""
        if scope["type"] not in ("http", "websocket"):
            raise RuntimeError("Only HTTP and WebSockets are served here.")
        started = self._monotonic()
        headers = _joined(scope["headers"])
        context = RequestContext(self._request_id(headers), headers)
        scope[SCOPE_KEY] = context
        path: str = scope["path"]
        if path.startswith("/t/"):
            _take_tenant(scope, context, path)
        send_out = _finished(send, context, path)
        metrics = self._metrics
        metrics.in_progress += 1
        try:
            if self._limiter is not None and scope["path"].startswith(self._limited):
                await self._limiter.admit(scope, context)
            if scope["type"] == "websocket":
                await self._upgrade(scope, receive, send_out)
                return
            if b"content-length" in headers or b"transfer-encoding" in headers:
                receive = await self._limit_body(path, headers, receive)
            app = self._exact.get(scope["path"])
            if app is not None and b"origin" not in headers:
                scope["path_template"] = scope["path"]
            else:
                app = self._route(scope, from_browser=b"origin" in headers)
            await app(scope, receive, send_out)
        except ClientGone:
            pass
        except Exception as exc:
            await _answer_error(context, exc, scope, send_out, self._cors(headers))
        finally:
            metrics.in_progress -= 1
            self._note(context, scope, self._monotonic() - started)

    def _route(self, scope: Scope, *, from_browser: bool) -> ASGIApp:
        path: str = scope["path"]
        segment = path.lstrip("/").partition("/")[0]
        direct = self._direct
        if segment in ADMIN_SEGMENTS and self._is_admin is not None and not self._is_admin(scope):
            raise NotFoundError("Not found")
        if segment not in OWN_SEGMENTS or not direct.is_own(path):
            return direct.door or self._app
        if segment == "objects":
            return direct.objects or self._app
        below = None if from_browser else direct.below.get(segment)
        return below or self._app

    async def _upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request for a WebSocket: only objects, apps and changes have any."""
        segment = scope["path"][1:].partition("/")[0]
        app = self._direct.door
        if segment in OWN_SEGMENTS:
            app = self._direct.objects if segment == "objects" else None
            if segment in ("api", "auth") and not self._direct.is_own(scope["path"]):
                app = self._direct.door
            if segment == "changes":
                app = self._direct.below.get(segment)
        if app is None:
            from server.websockets import expect_upgrade

            await expect_upgrade(receive)
            raise NotFoundError("Not found")
        await app(scope, receive, send)

    def _cors(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """What lets a page of a listed origin read an error that the framework has not seen."""
        origin = headers.get(b"origin")
        if origin is None or origin not in self._cors_origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED.encode()),
            (b"vary", b"Origin"),
        ]

    def _note(self, context: RequestContext, scope: Scope, seconds: float) -> None:
        method = scope.get("method", "GET")
        template = scope.get("path_template")
        if template is not None:
            context.route = template if context.path_tenant is None else TENANT_PREFIX + template
        self._metrics.request(context.route, method, context.status or 499, seconds)
        self._access_log.request(context, method, seconds)
        if context.status >= 500:
            self._access_log.failure(context, method)

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        """The client's own, if it has the right shape, else a random UUID (version 4)."""
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        text = self._random(16).hex()
        variant = "89ab"[int(text[16], 16) & 3]
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"

    async def _limit_body(
        self, path: str, headers: dict[bytes, bytes], receive: Receive
    ) -> Receive:
        """Refuse what is too large or encoded; else ``receive``, counting if need be."""
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError(
                "Send the body without Content-Encoding.", code="unsupported_media_type"
            )
        limit = self._body_limit(path)
        length = headers.get(b"content-length")
        if length is None or b"transfer-encoding" in headers:
            return counted(receive, limit)
        if int(length) > limit:
            if int(length) <= limit * DRAIN_FACTOR and b"expect" not in headers:
                await drain(receive, limit * DRAIN_FACTOR)
            raise body_too_large(limit)
        return receive


def _finished(send: Send, context: RequestContext, path: str) -> Send:
    """``send`` that adds to the head of each reply what all have, and notes its status."""

    async def send_out(message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            context.status = message["status"]
            headers = [*message["headers"]]
            common = _PAGE_HEADERS if path.startswith(PAGES) else _API_HEADERS
            if context.from_app:
                headers = [pair for pair in headers if pair[0] != b"x-request-id"]
                present = {name for name, _ in headers}
                common = [pair for pair in _APP_HEADERS if pair[0] not in present]
            message["headers"] = [
                *headers,
                *common,
                *context.extra_headers,
                (b"x-request-id", context.request_id.encode()),
            ]
        elif kind == "websocket.accept":
            context.status = 101
        elif kind == "websocket.close" and not context.status:
            context.status = 403
        await send(message)

    return send_out


async def _answer_error(
    context: RequestContext,
    exc: Exception,
    scope: Scope,
    send: Send,
    cors: list[tuple[bytes, bytes]],
) -> None:
    if context.status:  # too late to say anything: uvicorn closes the connection
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1011})
        context.error, context.status = exc, 500
        return
    status, body, headers = error_reply(exc, context)
    if scope["type"] == "websocket":
        from server.websockets import send_denial  # there are none without an app

        await send_denial(send, status, body, [JSON_TYPE, *headers])
        return
    headers += cors
    if status == 413:
        headers.append((b"connection", b"close"))
    await send_json(send, status, body, headers)


def _take_tenant(scope: Scope, context: RequestContext, path: str) -> None:
    """``/t/{tenant}/query`` becomes ``/query``; only routes of tenants have that prefix."""
    _, _, tenant, rest = path.split("/", 3) if path.count("/") > 2 else ("", "", "", "")
    if rest.partition("/")[0] in TENANT_ROUTES:
        context.path_tenant = tenant
        scope["path"] = "/" + rest


def _joined(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; several of one name are joined by a comma (RFC 9110, 5.3)."""
    headers = dict(pairs)
    if len(headers) != len(pairs):
        headers = {}
        for name, value in pairs:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


async def live(scope: Scope, receive: Receive, send: Send) -> None:
    """``GET /live``: the process answers, whatever else it is busy with."""
    if scope["method"] != "GET":
        raise MethodNotAllowed("GET")
    await send_json(send, 200, b'{"status":"alive"}')
