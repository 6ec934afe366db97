"""Edge: the outermost layer of every request, plain ASGI.

What holds for every reply, whatever route or error made it, is done here: the request id, the
security headers, the size and encoding of bodies, the access log, the metrics, and an error body
for every exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from dosql.clock import Clock, Randomness
from dosql.errors import NotFoundError, RequestError
from dosql.limits import REQUEST_ID_PATTERN
from server.access_log import AccessLog
from server.asgi import (
    DRAIN_FACTOR,
    JSON_TYPE,
    ASGIApp,
    ClientGone,
    Receive,
    Scope,
    Send,
    body_too_large,
    counted,
    drain,
    send_json,
)
from server.context import SCOPE_KEY, RequestContext
from server.direct import Direct
from server.error_responses import error_reply
from server.metrics import Metrics
from server.paths import ADMIN_SEGMENTS, OWN_SEGMENTS, TENANT_PREFIX, take_tenant
from server.rate_limiter import RateLimiter
from server.reply_headers import cors_headers, finished

_REQUEST_ID = re.compile(REQUEST_ID_PATTERN.encode(), re.ASCII)


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
            take_tenant(scope, context, path)
        send_out = finished(send, context, path)
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
            await _answer_error(context, exc, scope, send_out, self._cors(headers.get(b"origin")))
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

    def _cors(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        if origin is None or origin not in self._cors_origins:
            return []
        return cors_headers(origin)

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


def _joined(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; several of one name are joined by a comma (RFC 9110, 5.3)."""
    headers = dict(pairs)
    if len(headers) != len(pairs):
        headers = {}
        for name, value in pairs:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers
