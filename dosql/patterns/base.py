"""BaseDurableObject: a durable object with the helpers that most of them end up with.

- ``on_initialize`` runs before the first event of every life of the object, also after it
  hibernated: load there what every event needs, and nothing else.
- ``handle_request`` answers HTTP. What it raises on purpose (`DosqlError`) keeps its status; any
  other exception is logged and answered 500 ``Internal error``, without its text.
- ``get``, ``put``, ``delete``, ``list`` are those of ``ctx.storage``.

None of these names can be called from outside the object: see ``not_rpc``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from dosql import DosqlError, DurableObject, ObjectState, Request, Response

T = TypeVar("T")
_log = logging.getLogger("dosql.patterns")
_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    426: "upgrade_required",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}
"""What ``code`` says in an error's body if nobody said it."""


class BaseDurableObject(DurableObject):
    """Subclass it and override ``handle_request`` (or ``fetch``) and ``on_initialize``."""

    not_rpc: ClassVar[frozenset[str]] = frozenset(
        {
            *("initialize", "on_initialize", "handle_request", "now_ms"),
            *("get", "put", "delete", "list", "block_concurrency_while"),
            *("json", "error", "success", "method_not_allowed"),
        }
    )
    """Public names that are for subclasses, not for callers."""

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        self._initialized = ctx.block_concurrency_while(self.on_initialize)

    @property
    def state(self) -> ObjectState:
        """``ctx`` under its older name."""
        return self.ctx

    # --- life ---------------------------------------------------------------------------------

    async def initialize(self) -> None:
        """Return when `on_initialize` has run, which it does once in every life of the object.

        The runtime waits for it before the first event; awaiting it again does no harm. If it
        raises, the object is reset and the next event tries again.
        """
        await self._initialized

    async def on_initialize(self) -> None:
        """Override: load what every event needs."""

    # --- HTTP ---------------------------------------------------------------------------------

    async def fetch(self, request: Request) -> Response:
        """Answer with `handle_request`; see the module's text for what it raises."""
        await self.initialize()
        try:
            return await self.handle_request(request)
        except DosqlError:
            raise
        except Exception:
            _log.exception("%s failed at %s %s", self.ctx.id, request.method, request.path)
            return self.error("Internal error", 500)

    async def handle_request(self, request: Request) -> Response:
        """Override: answer one request."""
        return self.error("Not found", 404)

    def json(
        self, data: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """A JSON response."""
        return Response.from_json(data, status=status, headers=headers)

    def error(
        self,
        message: str,
        status: int = 500,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """``{"error": message, "code": code}``; without ``code`` the status decides it."""
        body = {"error": message, "code": code or _CODES.get(status, "error")}
        return self.json(body, status, headers)

    def success(self, data: Mapping[str, object] | None = None, status: int = 200) -> Response:
        """``{"success": true}`` and what ``data`` adds."""
        return self.json({"success": True, **(data or {})}, status)

    def method_not_allowed(self, *allowed: str) -> Response:
        """405, with the methods that would be."""
        return self.error("Method not allowed", 405, headers={"Allow": ", ".join(allowed)})

    # --- storage ------------------------------------------------------------------------------
    # Properties, so that they keep the overloads and the options of ctx.storage.

    @property
    def get(self) -> Any:
        """``ctx.storage.get``: one key, or a list of them."""
        return self.ctx.storage.get

    @property
    def put(self) -> Any:
        """``ctx.storage.put``: a key and its value, or a mapping."""
        return self.ctx.storage.put

    @property
    def delete(self) -> Any:
        """``ctx.storage.delete``: one key, or a list of them."""
        return self.ctx.storage.delete

    @property
    def list(self) -> Any:
        """``ctx.storage.list``: ``prefix``, ``start``, ``start_after``, ``end``, ``reverse``,
        ``limit``."""
        return self.ctx.storage.list

    def block_concurrency_while(self, body: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """``ctx.block_concurrency_while``: no other event of the object runs meanwhile."""
        return self.ctx.block_concurrency_while(body)

    def now_ms(self) -> int:
        """The object's wall clock, in milliseconds since the Unix epoch."""
        return self.ctx.clock.now_ms()


def origin_allowed(request: Request, allowed: frozenset[str] = frozenset()) -> bool:
    """Whether a page of this origin may open a WebSocket: the server's own, or one of ``allowed``.

    Browsers send cookies with WebSockets to any site and CORS does not apply to them, so this check
    is all there is. Programs other than browsers send no Origin and are let through.
    """
    origin = request.headers.get("origin")
    if origin is None or origin in allowed:
        return True
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != ""
