"""Direct: the routes that need no framework, and are there before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from server.asgi import ASGIApp, Receive, Scope, Send, send_json
from server.error_responses import MethodNotAllowed
from server.paths import USERS


class Direct(msgspec.Struct, frozen=True):
    """The routes that the edge calls itself, without the framework in between."""

    exact: Mapping[str, ASGIApp]
    """By path. With a browser's Origin they go through the framework, which has the CORS rules."""
    below: Mapping[str, ASGIApp] = msgspec.field(default_factory=dict[str, ASGIApp])
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


async def live(scope: Scope, receive: Receive, send: Send) -> None:
    """``GET /live``: the process answers, whatever else it is busy with."""
    if scope["method"] != "GET":
        raise MethodNotAllowed("GET")
    await send_json(send, 200, b'{"status":"alive"}')
