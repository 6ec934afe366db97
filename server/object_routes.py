"""The routes of durable objects: plain ASGI callables, as the SQL routes are.

=============================================  ==================================================
``ANY /objects/{namespace}/{name}/{path}``     the object's ``fetch``, or its WebSocket
``POST /rpc/{namespace}/{name}/{method}``      a method of it
=============================================  ==================================================

A name is one segment, percent-encoded where it must be; ``@`` and 64 hex digits stand for an id.
Both are for the admin token. The users of an application come in by its own door (`server.door`).
"""

from __future__ import annotations

import re
from typing import Any, Protocol
from urllib.parse import quote, unquote_to_bytes

from dosql.errors import InvalidRequestError, NotFoundError
from dosql.host.objects import Objects
from dosql.host.stub import Stub
from dosql.host.tenant import Tenant
from server.asgi import Receive, Scope, Send, read_body, send_json
from server.context import RequestContext, context_of
from server.error_responses import MethodNotAllowed
from server.exchange import Answer, raw_path, request_of
from server.gate import Gate
from server.shown_errors import shown_error
from server.sql_routes import REPLAYED, require_json
from server.sql_work import idempotency

OBJECTS = "/objects"
RPC = "/rpc"
OBJECT_TEMPLATE = "/objects/{namespace}/{name}/{path}"
RPC_TEMPLATE = "/rpc/{namespace}/{name}/{method}"
FORWARD = "dosql.forward"
"""Key in the ASGI scope of a mounted application: a `Forward`."""
_ID = re.compile(rb"@([0-9a-fA-F]{64})")
_OURS = frozenset({b"authorization"})
"""The admin token is for the server; an object does not get to see it."""


class Forward(Protocol):
    """Lets an object answer a request of ASGI's; ``path`` instead of the request's own."""

    async def __call__(
        self, stub: Stub[Any], scope: Scope, receive: Receive, send: Send, path: str | None = None
    ) -> None: ...


class FetchRoute:
    """``ANY /objects/{namespace}/{name}/{path}``."""

    def __init__(self, objects: Objects, gate: Gate[Tenant], answer: Answer) -> None:
        self._objects = objects
        self._gate = gate
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors are raised, for the edge to answer."""
        context = context_of(scope)
        context.route = OBJECT_TEMPLATE
        context.principal = self._gate.authenticate_admin(context.headers)
        namespace, name, path = _parts(scope)
        stub = stub_of(self._objects, namespace, name, context)
        await self._fetch(stub, scope, receive, send, b"/" + path, hide=_OURS)

    async def forward(
        self, stub: Stub[Any], scope: Scope, receive: Receive, send: Send, path: str | None = None
    ) -> None:
        """Implements `Forward`."""
        encoded = None if path is None else quote(path).encode()
        await self._fetch(stub, scope, receive, send, encoded, hide=frozenset())

    async def _fetch(
        self,
        stub: Stub[Any],
        scope: Scope,
        receive: Receive,
        send: Send,
        path: bytes | None,
        *,
        hide: frozenset[bytes],
    ) -> None:
        request = await request_of(scope, receive, path, hide=hide)
        try:
            response = await stub.fetch(request)
        except Exception as exc:
            raise shown_error(exc) from exc
        await self._answer(response, scope, receive, send)


class RpcRoute:
    """``POST /rpc/{namespace}/{name}/{method}``."""

    def __init__(self, objects: Objects, gate: Gate[Tenant]) -> None:
        self._objects = objects
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors are raised, for the edge to answer."""
        context = context_of(scope)
        context.route = RPC_TEMPLATE
        if scope["method"] != "POST":
            raise MethodNotAllowed("POST")
        headers = context.headers
        require_json(headers)
        context.principal = self._gate.authenticate_admin(headers)
        namespace, name, rest = _parts(scope)
        method = _text(rest)
        stub = stub_of(self._objects, namespace, name, context)
        body = await read_body(receive)
        key = headers.get(b"idempotency-key")
        once = None if key is None else idempotency(key, f"rpc.{method}", b"", body)
        done = await stub.invoke(method, body, idempotency=once)
        extra = [(b"dosql-bookmark", str(done.bookmark).encode())]
        if done.replayed:
            extra.append(REPLAYED)
        await send_json(send, 200, done.body, extra)


def stub_of(objects: Objects, namespace: str, name: bytes, context: RequestContext) -> Stub[Any]:
    """The object that a segment of a path means; noted in the context.

    Raises:
        InvalidRequestError: ``invalid_object_name``, ``invalid_object_id``.
        NotFoundError: ``namespace_not_found``.
    """
    among = objects.namespace(namespace)
    context.namespace = namespace
    by_id = _ID.fullmatch(name)
    if by_id is not None:
        stub = among.get(among.id_from_string(by_id[1].decode()))
        context.object = str(stub.id)
        return stub
    text = _text(name)
    if not text:
        raise invalid_name("An object's name has at least one character.")
    stub = among.get_by_name(text)
    context.object = text
    return stub


def invalid_name(message: str) -> InvalidRequestError:
    """For a segment that names no object, whatever there is."""
    return InvalidRequestError(message, code="invalid_object_name")


def _parts(scope: Scope) -> tuple[str, bytes, bytes]:
    """Namespace, name and the rest of ``/objects/{namespace}/{name}/{rest}``, still encoded."""
    _, _, namespace, name, rest = (raw_path(scope).split(b"/", 4) + [b""] * 3)[:5]
    if not namespace or not name:
        raise NotFoundError("Not found")
    return _text(namespace), name, rest


def _text(segment: bytes) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise invalid_name("A name in a path is percent-encoded UTF-8.") from None
