"""The four SQL routes: plain ASGI callables, because here every microsecond is somebody's.

They stand in the application as Litestar's ``@asgi`` routes; the edge may also call them directly.
Nothing here decides: tokens and tenants are the gate's, statements the object's.
"""

from __future__ import annotations

from typing import get_args

from dosql.errors import ForbiddenError, RequestError
from dosql.host.tenant import Done, Tenant
from dosql.objects.idempotency import Idempotency
from server.asgi import Receive, Scope, Send, read_body, send_json
from server.context import context_of
from server.error_responses import MethodNotAllowed
from server.gate import Gate
from server.sql_work import (
    Kind,
    ReplyFormat,
    idempotency,
    reply_format,
    statement_work,
    transaction_work,
)

__all__ = ["KINDS", "REPLAYED", "SqlRoute", "require_json", "sql_routes"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_JSON_TYPES = (b"application/json", b"application/x-www-form-urlencoded")
REPLAYED = (b"idempotent-replayed", b"true")


class SqlRoute:
    """``POST /query``, ``/queryOne``, ``/run`` or ``/transaction``."""

    def __init__(self, kind: Kind, gate: Gate[Tenant]) -> None:
        self.kind: Kind = kind
        self._gate = gate
        self._may_travel = kind in ("query", "queryOne")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors are raised, for the edge to answer."""
        context = context_of(scope)
        if scope["method"] != "POST":
            raise MethodNotAllowed("POST")
        headers = context.headers
        require_json(headers)
        principal, tenant = await self._gate.enter_sql(headers, context.path_tenant)
        context.principal, context.tenant = principal, tenant
        form = reply_format(scope["query_string"], self._may_travel)
        body = await read_body(receive)
        key = headers.get(b"idempotency-key")
        once = None if key is None else idempotency(key, self.kind, scope["query_string"], body)
        done = await self._answer(tenant, body, form, once, read_only=principal.read_only)
        extra = [(b"dosql-bookmark", str(done.bookmark).encode())]
        if done.replayed:
            extra.append(REPLAYED)
        await send_json(send, 200, done.body, extra)

    async def _answer(
        self,
        tenant: Tenant,
        body: bytes,
        form: ReplyFormat,
        once: Idempotency | None,
        *,
        read_only: bool,
    ) -> Done:
        if form.at is not None and self.kind in ("query", "queryOne"):
            return await tenant.call_at(
                form.at, statement_work(self.kind, body, form, read_only=True)
            )
        if self.kind == "transaction":
            work = transaction_work(body, form, read_only=read_only)
            return await tenant.call(work, idempotency=once)
        if once is None or self.kind == "run" or read_only:
            work = statement_work(self.kind, body, form, read_only=read_only)
            return await tenant.call(work, idempotency=once if self.kind == "run" else None)
        # A query with a key: only one that writes needs its outcome kept.
        try:
            return await tenant.call(statement_work(self.kind, body, form, read_only=True))
        except ForbiddenError as error:
            if error.code != "read_only":
                raise
        work = statement_work(self.kind, body, form, read_only=False)
        return await tenant.call(work, idempotency=once)


def require_json(headers: dict[bytes, bytes]) -> None:
    """Raises RequestError (``unsupported_media_type``) for a body said to be something else.

    The type of a form is let through, because ``curl -d`` sends it for whatever body. No other
    site can make use of that: a request needs its Authorization header.
    """
    content_type = headers.get(b"content-type")
    if content_type is None or content_type == b"application/json":
        return
    if content_type.partition(b";")[0].strip().lower() not in _JSON_TYPES:
        raise RequestError(
            "The body must be JSON: Content-Type: application/json.",
            code="unsupported_media_type",
        )


def sql_routes(gate: Gate[Tenant]) -> dict[str, SqlRoute]:
    """All four, by path."""
    return {f"/{kind}": SqlRoute(kind, gate) for kind in KINDS}
