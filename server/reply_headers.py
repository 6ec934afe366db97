"""Headers that replies have whatever route made them."""

from __future__ import annotations

from server.asgi import Message, Send
from server.context import RequestContext
from server.paths import PAGES

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


def finished(send: Send, context: RequestContext, path: str) -> Send:
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


def cors_headers(origin: bytes) -> list[tuple[bytes, bytes]]:
    """What lets a page of a listed origin read an error that the framework has not seen."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED.encode()),
        (b"vary", b"Origin"),
    ]
