# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Reads: the reading statements that a transaction and a past state share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar, overload

from dosql.client import results
from dosql.client.calls import ReadType, Reply
from dosql.client.rows import Row, Rows
from dosql.wire.values import Params

T = TypeVar("T")


class Reads(ABC):
    """Statements that return rows, sent wherever the subclass sends them."""

    @overload
    def query(self, sql: str, params: Params | None = None) -> list[Row]: ...
    @overload
    def query(self, sql: str, params: Params | None = None, *, into: type[T]) -> list[T]: ...
    def query(
        self, sql: str, params: Params | None = None, *, into: type[Any] | None = None
    ) -> list[Any]:
        """All rows of a statement, as dicts or as instances of ``into``."""
        return results.all_rows(self._send_statement("query", sql, params), into)

    @overload
    def query_one(self, sql: str, params: Params | None = None) -> Row | None: ...
    @overload
    def query_one(self, sql: str, params: Params | None = None, *, into: type[T]) -> T | None: ...
    def query_one(
        self, sql: str, params: Params | None = None, *, into: type[Any] | None = None
    ) -> Any:
        """The first row of a statement, or None if it has none."""
        return results.first_row(self._send_statement("queryOne", sql, params), into)

    def query_rows(self, sql: str, params: Params | None = None) -> Rows:
        """Rows as tuples, with the column names: keeps duplicate names, and names of no rows."""
        return results.table(self._send_statement("query", sql, params, arrays=True))

    @abstractmethod
    def _send_statement(
        self,
        statement_type: ReadType,
        sql: str,
        params: Params | None,
        *,
        arrays: bool = False,
    ) -> Reply: ...
