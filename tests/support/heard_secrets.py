"""What the HTTP clients of this process tell servers, and are told, that nobody else may know."""

from __future__ import annotations

import contextlib
import json
import re
from collections import deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx2

SHAPE = re.compile(rb"ds[kst]_(?:admin_|[0-9a-f]{16}_)?[A-Za-z0-9_-]{43}")
"""Tokens of tenants, sessions, tickets and of the admin, as servers make them."""
CHARACTERS_MIN = 10
"""Shorter ones are words, which may stand anywhere."""
_KEPT_MAX = 100
_SHAPED_MAX = 20
"""Tokens of one server that are looked for without their prefix; the shape finds all others."""
_SECRET_FIELDS = (
    "password",
    "currentPassword",
    "newPassword",
    "token",
    "ticket",
)
_SECRET_PATHS = ("/auth/", "/admin/tokens")

_heard: dict[str, deque[str]] = {}
"""By host and port what clients of this process sent there, or got."""


def heard_at(address: str) -> Iterable[str]:
    """What went to this host and port, or came from there; the newest of it."""
    return _heard.get(address, ())


def _hear(request: httpx2.Request, reply: httpx2.Response | None) -> None:
    url = request.url
    secrets = [request.headers.get("authorization", "").partition(" ")[2].strip()]
    secrets += parse_qs(url.query.decode("latin-1")).get("ticket", [])
    path = unquote(url.path)
    if any(each in path for each in _SECRET_PATHS):
        with contextlib.suppress(ValueError, httpx2.StreamError):
            secrets += _secrets_in(json.loads(request.content))
        with contextlib.suppress(ValueError, httpx2.StreamError):
            if reply is not None and reply.is_success:
                secrets += _secrets_in(json.loads(reply.content))
    heard = _heard.setdefault(url.netloc.decode(), deque(maxlen=_KEPT_MAX))
    for each in secrets:
        is_found_anyway = (
            len(heard) >= _SHAPED_MAX
            and SHAPE.fullmatch(each.encode("utf-8", "replace")) is not None
        )
        if len(each) >= CHARACTERS_MIN and each not in heard and not is_found_anyway:
            heard.append(each)


def _secrets_in(body: Any) -> list[str]:
    if not isinstance(body, dict):
        return []
    return [body[name] for name in _SECRET_FIELDS if isinstance(body.get(name), str)]


def _wrap() -> None:
    plain, later = httpx2.Client.send, httpx2.AsyncClient.send

    def send(self: httpx2.Client, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            reply = plain(self, request, **options)
        except BaseException:
            _hear(request, None)
            raise
        _hear(request, reply)
        return reply

    async def send_later(
        self: httpx2.AsyncClient, request: httpx2.Request, **options: Any
    ) -> httpx2.Response:
        try:
            reply = await later(self, request, **options)
        except BaseException:
            _hear(request, None)
            raise
        _hear(request, reply)
        return reply

    httpx2.Client.send = send  # type: ignore[method-assign]
    httpx2.AsyncClient.send = send_later  # type: ignore[method-assign]


_wrap()
