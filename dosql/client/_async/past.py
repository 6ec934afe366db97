"""AsyncPastTenant: the database of one tenant as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, overload

from dosql.client._async.transport import AsyncTransport
from dosql.client.calls import (
    QueryOneReply,
    QueryReply,
    Reply,
    RowsReply,
    decode,
    past_statement_call,
)
from dosql.client.points import Point, query_point
from dosql.client.rows import Row, Rows, convert_rows, rows_from_json, table_from_json
from dosql.wire import Params

T = TypeVar("T")


class AsyncPastTenant:
    """Reads of one tenant's database at one point in time.

    Beside what reads of the present may raise: NotFoundError (``restore_point_not_found``) if the
    state is not kept, ForbiddenError (``read_only``) for a statement that writes, and
    InvalidRequestError (``no_bucket``) if the server has none.
    """

    def __init__(
        self, transport: AsyncTransport, name: str, headers: Mapping[str, str], point: Point
    ) -> None:
        self._transport = transport
        self._headers = headers
        self._at = query_point(point)
        self.name = name
        self.last_bookmark: str | None = None
        """The state that the newest reply was read from: the newest that is kept and not younger
        than the point."""

    @overload
    async def query(self, sql: str, params: Params | None = None) -> list[Row]: ...
    @overload
    async def query(self, sql: str, params: Params | None = None, *, into: type[T]) -> list[T]: ...
    async def query(
        self, sql: str, params: Params | None = None, *, into: type[Any] | None = None
    ) -> list[Any]:
        """All rows of a statement, as dicts or as instances of ``into``."""
        reply = await self._send("query", sql, params)
        rows = rows_from_json(decode(reply, QueryReply).rows)
        return rows if into is None else convert_rows(rows, into)

    @overload
    async def query_one(self, sql: str, params: Params | None = None) -> Row | None: ...
    @overload
    async def query_one(
        self, sql: str, params: Params | None = None, *, into: type[T]
    ) -> T | None: ...
    async def query_one(
        self, sql: str, params: Params | None = None, *, into: type[Any] | None = None
    ) -> Any:
        """The first row of a statement, or None if it has none."""
        row = decode(await self._send("queryOne", sql, params), QueryOneReply).row
        if row is None:
            return None
        rows = rows_from_json([row])
        return rows[0] if into is None else convert_rows(rows, into)[0]

    async def query_rows(self, sql: str, params: Params | None = None) -> Rows:
        """Rows as tuples, with the column names: keeps duplicate names, and names of no rows."""
        table = decode(await self._send("query", sql, params, arrays=True), RowsReply)
        return table_from_json(table.columns, table.rows)

    async def _send(
        self,
        statement_type: Literal["query", "queryOne"],
        sql: str,
        params: Params | None,
        *,
        arrays: bool = False,
    ) -> Reply:
        call = past_statement_call(
            statement_type, self._at, sql, params, headers=self._headers, rows_as_arrays=arrays
        )
        reply = await self._transport.send(call)
        self.last_bookmark = reply.headers.get("dosql-bookmark", self.last_bookmark)
        return reply
