"""Litestar responses that are not plain values."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response

from server.asgi import ASGIApp
from server.context import context_of
from server.error_responses import error_reply

AnyRequest = Request[Any, Any, Any]


class AsgiReply(Response[None]):
    """A reply that an ASGI callable sends: for streams, which must notice a client that leaves."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(None)
        self._app = app

    def to_asgi_response(self, *_: object, **__: object) -> Any:
        """The callable itself."""
        return self._app


def json_reply(body: bytes, headers: dict[str, str] | None = None) -> Response[bytes]:
    """An encoded body; the status is the handler's."""
    return Response(body, media_type="application/json", headers=headers)


def answer_error(request: AnyRequest, exc: Exception) -> Response[bytes]:
    """Litestar's handler for every exception: the same bodies as the edge's."""
    context = context_of(request.scope)
    status, body, headers = error_reply(exc, context)
    return Response(
        body,
        status_code=status,
        media_type="application/json",
        headers={name.decode(): value.decode() for name, value in headers},
    )
