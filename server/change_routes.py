"""The routes of changes, plain ASGI, also below ``/t/{tenant}``.

==========================================  ======================================================
``GET /changes``                            a stream of server-sent events, a WebSocket, or a page
``GET, POST /changes/slots``                named positions
``DELETE /changes/slots/{name}``
``POST /changes/slots/{name}/ack``
==========================================  ======================================================
"""

from __future__ import annotations

import asyncio
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from dosql.errors import InvalidRequestError, NotFoundError
from dosql.host.changes import Changes
from dosql.host.tenant import Tenant
from dosql.wire.changes import AcknowledgeChanges, CreateChangeSlot
from server.asgi import Receive, Scope, Send, read_body, send_json
from server.auth_streams import (
    check_origin,
    take_protocol_token,
    take_ticket,
    until_revoked,
    with_protocol,
)
from server.auth_watch import Watches
from server.change_bodies import bodies, encode
from server.change_requests import ChangeRequest, change_request
from server.context import RequestContext, context_of
from server.error_responses import MethodNotAllowed, invalid_body
from server.gate import Gate
from server.sql_routes import require_json
from server.sql_work import writes_refused

CHANGES = "/changes"
SLOTS = "/changes/slots"
SLOT = "/changes/slots/{name}"
ACK = "/changes/slots/{name}/ack"
T = TypeVar("T")


class ChangeRoutes:
    """All of them. ``closing`` is set when the server begins to shut down."""

    def __init__(
        self,
        changes: Changes,
        gate: Gate[Tenant],
        closing: asyncio.Event,
        *,
        watches: Watches | None = None,
        origins: tuple[str, ...] = (),
    ) -> None:
        """``origins``: whose pages may open a WebSocket, beside those of this server."""
        self._changes = changes
        self._gate = gate
        self._closing = closing
        self._watches = watches or Watches()
        self._origins = frozenset(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors are raised, for the edge to answer."""
        context = context_of(scope)
        parts = _parts(scope, context)
        template, methods = _route(parts)
        scope["path_template"] = template
        if scope["type"] == "websocket":
            from server.websockets import expect_upgrade  # few subscribers come so

            await expect_upgrade(receive)
            if template != CHANGES:
                raise NotFoundError("Not found")
            check_origin(context.headers, self._origins)
            take_protocol_token(scope, context)
        elif scope["method"] not in methods:
            raise MethodNotAllowed(", ".join(methods))
        headers = context.headers
        ticket = take_ticket(scope) if template == CHANGES else None
        entered = await self._gate.enter_sql(headers, context.path_tenant, ticket=ticket)
        context.principal, context.tenant = principal, tenant = entered
        if template == CHANGES:
            await self._follow(tenant, context, scope, receive, send)
            return
        if principal.read_only and scope["method"] != "GET":
            raise writes_refused()
        if scope["method"] == "POST":
            require_json(headers)
        name = parts[1] if len(parts) > 1 else ""
        await self._answer_slots(template, tenant, name, scope, receive, send)

    async def _follow(
        self, tenant: Tenant, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        request = change_request(scope["query_string"], context.headers)
        is_socket = scope["type"] == "websocket"
        if request.is_page and not is_socket:
            await self._page(tenant, request, send)
            return
        from server.change_streams import send_events, send_messages

        changes = self._changes
        subscription = await changes.subscribe(tenant, after=request.after, slot=request.slot)
        principal = context.principal
        assert principal is not None
        if is_socket:
            stream = send_messages(
                subscription,
                request,
                receive,
                with_protocol(scope, send),
                self._closing,
                changes=changes,
                read_only=principal.read_only,
            )
        else:
            stream = send_events(subscription, request, receive, send, self._closing)
        still_valid = self._gate.follow_sql(principal, tenant)
        try:
            await until_revoked(
                stream, still_valid, self._watches, context, send, is_socket=is_socket
            )
        finally:
            subscription.close()

    async def _page(self, tenant: Tenant, request: ChangeRequest, send: Send) -> None:
        after = request.after
        if after is None and request.slot is not None:
            after = (await self._changes.slot(tenant, request.slot)).acked
        page = await self._changes.page(tenant, after, request.limit)
        body = {"changes": bodies(page, request), "cursor": page.cursor, "more": page.more}
        bookmark = (b"dosql-bookmark", str(page.bookmark).encode())
        await send_json(send, 200, encode(body), [bookmark])

    async def _answer_slots(
        self,
        template: str,
        tenant: Tenant,
        name: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        changes = self._changes
        if scope["query_string"]:
            raise InvalidRequestError("There are no query parameters here.")
        if template == ACK:
            acked = _decode(await read_body(receive), AcknowledgeChanges)
            await send_json(send, 200, encode(await changes.acknowledge(tenant, name, acked.seq)))
        elif template == SLOT:
            await changes.delete_slot(tenant, name)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif scope["method"] == "POST":
            given = _decode(await read_body(receive), CreateChangeSlot)
            slot = await changes.create_slot(tenant, given.name, given.after)
            await send_json(send, 201, encode(slot))
        else:
            await send_json(send, 200, encode(await changes.slots(tenant)))


def _parts(scope: Scope, context: RequestContext) -> list[str]:
    """The segments behind ``changes``. Of the path as it came: behind Litestar's mounts only the
    end of it is left."""
    raw: bytes | None = scope.get("raw_path")
    path = scope["path"] if raw is None else unquote(raw.decode("ascii"))
    segments = path.split("/")[1:]
    if context.path_tenant is not None and segments[0] == "t":
        segments = segments[2:]
    return segments[1:]


def _route(parts: list[str]) -> tuple[str, tuple[str, ...]]:
    match parts:
        case []:
            return CHANGES, ("GET",)
        case ["slots"]:
            return SLOTS, ("GET", "POST")
        case ["slots", name] if name:
            return SLOT, ("DELETE",)
        case ["slots", name, "ack"] if name:
            return ACK, ("POST",)
        case _:
            raise NotFoundError("Not found")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError, OverflowError) as exc:
        raise invalid_body(exc) from None
