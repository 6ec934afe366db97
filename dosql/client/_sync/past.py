# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""PastTenant: the database of one tenant as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, overload

from dosql.client._sync.transport import Transport
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


class PastTenant:
    """Reads of one tenant's database at one point in time.

    Beside what reads of the present may raise: NotFoundError (``restore_point_not_found``) if the
    state is not kept, ForbiddenError (``read_only``) for a statement that writes, and
    InvalidRequestError (``no_bucket``) if the server has none.
    """

    def __init__(
        self, transport: Transport, name: str, headers: Mapping[str, str], point: Point
    ) -> None:
        self._transport = transport
        self._headers = headers
        self._at = query_point(point)
        self.name = name
        self.last_bookmark: str | None = None
        """The state that the newest reply was read from: the newest that is kept and not younger
        than the point."""

    @overload
    def query(self, sql: str, params: Params | None = None) -> list[Row]: ...
    @overload
    def query(self, sql: str, params: Params | None = None, *, into: type[T]) -> list[T]: ...
    def query(
        self, sql: str, params: Params | None = None, *, into: type[Any] | None = None
    ) -> list[Any]:
        """All rows of a statement, as dicts or as instances of ``into``."""
        reply = self._send("query", sql, params)
        rows = rows_from_json(decode(reply, QueryReply).rows)
        return rows if into is None else convert_rows(rows, into)

    @overload
    def query_one(self, sql: str, params: Params | None = None) -> Row | None: ...
    @overload
    def query_one(self, sql: str, params: Params | None = None, *, into: type[T]) -> T | None: ...
    def query_one(
        self, sql: str, params: Params | None = None, *, into: type[Any] | None = None
    ) -> Any:
        """The first row of a statement, or None if it has none."""
        row = decode(self._send("queryOne", sql, params), QueryOneReply).row
        if row is None:
            return None
        rows = rows_from_json([row])
        return rows[0] if into is None else convert_rows(rows, into)[0]

    def query_rows(self, sql: str, params: Params | None = None) -> Rows:
        """Rows as tuples, with the column names: keeps duplicate names, and names of no rows."""
        table = decode(self._send("query", sql, params, arrays=True), RowsReply)
        return table_from_json(table.columns, table.rows)

    def _send(
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
        reply = self._transport.send(call)
        self.last_bookmark = reply.headers.get("dosql-bookmark", self.last_bookmark)
        return reply
