"""Running a statement of which nobody said whether it returns rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from dosql.errors import InvalidRequestError
from dosql.wire.values import Params

if TYPE_CHECKING:
    from dosql.client import Rows, RunResult

_SILENT = re.compile(r"\s*(?:insert|update|delete|replace|create|drop|alter|reindex)\b", re.I)


class Database(Protocol):
    """What a tenant and an interactive transaction have in common."""

    def query_rows(self, sql: str, params: Params | None = None) -> Rows: ...
    def run(self, sql: str, params: Params | None = None) -> RunResult: ...


def execute(database: Database, sql: str, params: Params | None = None) -> Rows | RunResult:
    """The rows of the statement, or what it did.

    The server refuses a query without rows before it runs anything, so the second try does
    not repeat the first.
    """
    if not (_SILENT.match(sql) and "returning" not in sql.lower()):
        try:
            return database.query_rows(sql, params)
        except InvalidRequestError as exc:
            if exc.code != "statement_returns_no_rows":
                raise
    return database.run(sql, params)
