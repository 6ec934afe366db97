"""AsyncReads: the reading statements that a transaction and a past state share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar, overload

from dosql.client import results
from dosql.client.calls import ReadType, Reply
from dosql.client.rows import Row, Rows
from dosql.wire.values import Params

T = TypeVar("T")


class AsyncReads(ABC):
    """Statements that return rows, sent wherever the subclass sends them."""

    @overload
    async def query(self, sql: str, params: Params | None = None) -> list[Row]: ...
    @overload
    async def query(self, sql: str, params: Params | None = None, *, into: type[T]) -> list[T]: ...
    async def query(
        self, sql: str, params: Params | None = None, *, into: type[Any] | None = None
    ) -> list[Any]:
        """All rows of a statement, as dicts or as instances of ``into``."""
        return results.all_rows(await self._send_statement("query", sql, params), into)

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
        return results.first_row(await self._send_statement("queryOne", sql, params), into)

    async def query_rows(self, sql: str, params: Params | None = None) -> Rows:
        """Rows as tuples, with the column names: keeps duplicate names, and names of no rows."""
        return results.table(await self._send_statement("query", sql, params, arrays=True))

    @abstractmethod
    async def _send_statement(
        self,
        statement_type: ReadType,
        sql: str,
        params: Params | None,
        *,
        arrays: bool = False,
    ) -> Reply: ...
