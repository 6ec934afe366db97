"""AsyncTenant: the database of one tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, TypeVar, overload

from dosql.client import operations as ops
from dosql.client import results
from dosql.client._async.auth import AsyncAuth
from dosql.client._async.changes import AsyncSlots, follow_changes
from dosql.client._async.past import AsyncPastTenant
from dosql.client._async.transaction import AsyncTransaction
from dosql.client._async.transport import AsyncTransport
from dosql.client.calls import (
    Call,
    Reply,
    StatementType,
    TransactionReply,
    check_tenant_name,
    decode,
    encode,
    idempotency_key_or_new,
    json_headers,
    statement_call,
)
from dosql.client.changes import ChangeEvent
from dosql.client.operations import Operation, PlainOperation
from dosql.client.points import Point
from dosql.client.reconnect import Reconnect
from dosql.client.rows import Row, Rows, RunResult
from dosql.errors import InternalError
from dosql.wire.values import Params

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
_RECONNECT = Reconnect()


class AsyncTenant:
    """Statements against one tenant's database, each its own transaction.

    Every method may raise the errors of `dosql.errors`: SqlError and its ConstraintError for
    what SQLite refuses, UnavailableError when nothing was written, OutcomeUnknownError when a
    write's reply was lost and the repetitions ran out.
    """

    def __init__(self, transport: AsyncTransport, name: str) -> None:
        self._transport = transport
        self.name = check_tenant_name(name)
        self._headers = {"X-Tenant-ID": self.name}
        self.last_bookmark: str | None = None
        """The state of the database that the newest reply reflects."""
        self.change_slots = AsyncSlots(transport, self._headers)
        self.auth = AsyncAuth(transport, self._headers)
        """Users and their sessions."""

    @overload
    async def query(
        self, sql: str, params: Params | None = None, *, idempotency_key: str | None = None
    ) -> list[Row]: ...
    @overload
    async def query(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[T],
        idempotency_key: str | None = None,
    ) -> list[T]: ...
    async def query(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[Any] | None = None,
        idempotency_key: str | None = None,
    ) -> list[Any]:
        """All rows of a statement, as dicts or as instances of ``into``."""
        reply = await self._send_statement("query", sql, params, idempotency_key)
        return results.all_rows(reply, into)

    @overload
    async def query_one(
        self, sql: str, params: Params | None = None, *, idempotency_key: str | None = None
    ) -> Row | None: ...
    @overload
    async def query_one(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[T],
        idempotency_key: str | None = None,
    ) -> T | None: ...
    async def query_one(
        self,
        sql: str,
        params: Params | None = None,
        *,
        into: type[Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """The first row of a statement, or None if it has none."""
        reply = await self._send_statement("queryOne", sql, params, idempotency_key)
        return results.first_row(reply, into)

    async def query_rows(
        self, sql: str, params: Params | None = None, *, idempotency_key: str | None = None
    ) -> Rows:
        """Rows as tuples, with the column names: keeps duplicate names, and names of no rows."""
        reply = await self._send_statement("query", sql, params, idempotency_key, arrays=True)
        return results.table(reply)

    async def run(
        self, sql: str, params: Params | None = None, *, idempotency_key: str | None = None
    ) -> RunResult:
        """Run a statement that writes; durable when this returns.

        With an ``idempotency_key`` of your own you can repeat the call yourself, for a day:
        the statement runs once, and every repetition gets the first outcome.
        """
        reply = await self._send_statement("run", sql, params, idempotency_key)
        return results.run_result(reply)

    @overload
    async def batch(
        self, operations: tuple[Operation[T1]], *, idempotency_key: str | None = None
    ) -> tuple[T1]: ...
    @overload
    async def batch(
        self, operations: tuple[Operation[T1], Operation[T2]], *, idempotency_key: str | None = None
    ) -> tuple[T1, T2]: ...
    @overload
    async def batch(
        self,
        operations: tuple[Operation[T1], Operation[T2], Operation[T3]],
        *,
        idempotency_key: str | None = None,
    ) -> tuple[T1, T2, T3]: ...
    @overload
    async def batch(
        self,
        operations: tuple[Operation[T1], Operation[T2], Operation[T3], Operation[T4]],
        *,
        idempotency_key: str | None = None,
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def batch(
        self,
        operations: Sequence[Operation[Any] | PlainOperation],
        *,
        idempotency_key: str | None = None,
    ) -> Sequence[Any]: ...
    async def batch(
        self,
        operations: Sequence[Operation[Any] | PlainOperation],
        *,
        idempotency_key: str | None = None,
    ) -> Any:
        """Run all operations in one transaction, or none of them.

        The results come in the order of the operations; a tuple of operations gives a tuple
        whose types a checker knows. An error carries the failed operation's ``index``.
        """
        prepared = [ops.from_plain(operation) for operation in operations]
        call = Call(
            "POST",
            "/transaction",
            encode(ops.to_body(prepared)),
            json_headers({**self._headers, "Idempotency-Key": self._key(idempotency_key)}),
            writes=True,
        )
        results = decode(await self._send(call), TransactionReply).results
        if len(results) != len(prepared):
            raise InternalError("The reply has not one result each.", code="invalid_reply")
        read = ops.read_results(prepared, results)
        return tuple(read) if isinstance(operations, tuple) else read

    def transaction(self) -> AsyncTransaction:
        """An interactive transaction, for a ``with`` block.

        Statements inside really run and really read; nobody else's run meanwhile. It commits
        at the end of the block, and rolls back if the block raises. The server rolls back too
        when it waits more than 5 s for the next statement, or the client goes away.
        """
        return AsyncTransaction(self._transport, self._headers, self._note_bookmark)

    def changes(
        self,
        *,
        after: int | None = None,
        tables: Iterable[str] | None = None,
        operations: Iterable[str] | None = None,
        slot: str | None = None,
        follow: bool = True,
        reconnect: Reconnect | None = _RECONNECT,
    ) -> AsyncIterator[ChangeEvent]:
        """The changes of the tenant's rows, each after it is durable, in the order of the commits.

        ``after`` is the ``seq`` of the last one that is known: 0 for all; None for what comes
        from now on, or, with a ``slot``, for what that has not acknowledged. ``operations`` are
        of insert, update, delete and schema. It goes on for ever, over as many connections as it
        takes; with ``follow=False`` it ends when everything there is was given. A `Reset` among
        them says that some are missing: copy the tables again.

        Raises:
            NotFoundError: ``tenant_not_found``, ``slot_not_found``.
            DosqlError: also what a connection was lost for, without ``reconnect``.
        """
        return follow_changes(
            self._transport,
            self._headers,
            after=after,
            tables=tables,
            operations=operations,
            slot=slot,
            follow=follow,
            reconnect=reconnect,
        )

    def at(self, point: Point) -> AsyncPastTenant:
        """The database as it was at a point: a bookmark, RFC 3339 text, or an aware datetime. A
        time means the newest state that is not younger. No request is made.

        Raises:
            InvalidRequestError: ``invalid_time``, ``invalid_bookmark``.
        """
        return AsyncPastTenant(self._transport, self.name, self._headers, point)

    async def _send_statement(
        self,
        statement_type: StatementType,
        sql: str,
        params: Params | None,
        key: str | None,
        *,
        arrays: bool = False,
    ) -> Reply:
        call = statement_call(
            "",
            statement_type,
            sql,
            params,
            headers=self._headers,
            idempotency_key=self._key(key),
            rows_as_arrays=arrays,
        )
        return await self._send(call)

    async def _send(self, call: Call) -> Reply:
        reply = await self._transport.send(call)
        self._note_bookmark(reply)
        return reply

    def _key(self, given: str | None) -> str:
        return idempotency_key_or_new(given, self._transport.randomness)

    def _note_bookmark(self, reply: Reply) -> None:
        self.last_bookmark = reply.headers.get("dosql-bookmark", self.last_bookmark)
