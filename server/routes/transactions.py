"""Interactive transactions: statements between which the client may think."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response, delete, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from dosql.clock import iso_from_ms
from dosql.errors import NotFoundError
from dosql.host.tenant import Tenant
from dosql.objects.idempotency import Idempotency
from dosql.objects.interactive import InteractiveTransaction
from dosql.wire.statements import TransactionOpened
from server.asgi import NDJSON, Receive, Scope, Send
from server.components import Components
from server.context import RequestContext, context_of
from server.replies import AnyRequest, AsgiReply, json_reply
from server.sql_work import StatementKind, idempotency, reply_format, statement_work

_COMMITTED = b'{"committed":true}'
_encode = msgspec.json.Encoder().encode


@post("/transactions", tags=["Transactions"])
async def begin(request: AnyRequest, components: NamedDependency[Components]) -> Response[Any]:
    """Begin a transaction; everybody else waits until it ends.

    With `Accept: application/x-ndjson` the reply is a stream whose first line is the body shown
    here. It stays open as long as the transaction; when the client closes it, or dies, the
    transaction is rolled back at once.
    """
    context = context_of(request.scope)
    transaction = await _tenant(context).begin()
    opened = _encode(
        TransactionOpened(
            id=transaction.id,
            expires_at=iso_from_ms(transaction.expires_at_ms),
            idle_seconds=transaction.idle_s,
        )
    )
    if NDJSON in context.headers.get(b"accept", b""):
        return AsgiReply(_Stream(transaction, opened, components.closing))
    return json_reply(opened)


class _Stream:
    """Sends the first line, then holds the transaction until it ends or the client leaves."""

    def __init__(
        self, transaction: InteractiveTransaction, opened: bytes, closing: asyncio.Event
    ) -> None:
        self._transaction = transaction
        self._opened = opened
        self._closing = closing

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = [(b"content-type", NDJSON), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 201, "headers": headers})
            line = {"type": "http.response.body", "body": self._opened + b"\n", "more_body": True}
            await send(line)
            await _first(
                lambda: _disconnected(receive), self._transaction.wait_closed, self._closing.wait
            )
        finally:
            await asyncio.shield(asyncio.ensure_future(self._transaction.rollback()))
        await send({"type": "http.response.body", "body": b""})


async def _first(*waits: Callable[[], Any]) -> None:
    """Return when one of them does; the others are given up."""
    tasks = [asyncio.ensure_future(wait()) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _statement(request: AnyRequest, id: str, kind: StatementKind) -> Response[bytes]:
    form = reply_format(request.scope["query_string"])
    transaction = _tenant(context_of(request.scope)).transaction(id)
    work = statement_work(kind, await request.body(), form, read_only=False)
    return json_reply(await transaction.call(work))


@post("/transactions/{id:str}/query", tags=["Transactions"], status_code=200)
async def query(request: AnyRequest, id: FromPath[str]) -> Response[bytes]:
    """As `/query`, inside the transaction."""
    return await _statement(request, id, "query")


@post("/transactions/{id:str}/queryOne", tags=["Transactions"], status_code=200)
async def query_one(request: AnyRequest, id: FromPath[str]) -> Response[bytes]:
    """As `/queryOne`, inside the transaction."""
    return await _statement(request, id, "queryOne")


@post("/transactions/{id:str}/run", tags=["Transactions"], status_code=200)
async def run(request: AnyRequest, id: FromPath[str]) -> Response[bytes]:
    """As `/run`, inside the transaction; durable only with its commit."""
    return await _statement(request, id, "run")


@post("/transactions/{id:str}/commit", tags=["Transactions"], status_code=200)
async def commit(request: AnyRequest, id: FromPath[str]) -> Response[bytes]:
    """Commit; durable when it answers. With an Idempotency-Key it may be sent again."""
    context = context_of(request.scope)
    tenant = _tenant(context)
    once = idempotency(context.headers.get(b"idempotency-key"), "commit", b"", id.encode())
    try:
        bookmark = await tenant.transaction(id).commit(_COMMITTED, once)
    except NotFoundError:
        return await _replay(tenant, once)
    return json_reply(_COMMITTED, {"Dosql-Bookmark": str(bookmark)})


async def _replay(tenant: Tenant, once: Idempotency | None) -> Response[bytes]:
    """The transaction has ended: was it this very request that committed it?"""
    done = None if once is None else await tenant.committed(once)
    if done is None:
        raise NotFoundError(
            "There is no such transaction; it may have ended.", code="transaction_not_found"
        )
    headers = {"Dosql-Bookmark": str(done.bookmark), "Idempotent-Replayed": "true"}
    return json_reply(done.body, headers)


@delete("/transactions/{id:str}", tags=["Transactions"])
async def rollback(request: AnyRequest, id: FromPath[str]) -> None:
    """Roll back; a second time it does nothing."""
    with contextlib.suppress(NotFoundError):
        await _tenant(context_of(request.scope)).transaction(id).rollback()


def _tenant(context: RequestContext) -> Tenant:
    assert context.tenant is not None, "the guard has seen to it"
    return context.tenant


TRANSACTION_ROUTES = [begin, query, query_one, run, commit, rollback]
