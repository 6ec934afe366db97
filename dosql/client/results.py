"""What the reply to a statement says, in the types that the methods promise."""

from __future__ import annotations

from typing import Any

from dosql.client.calls import QueryOneReply, QueryReply, Reply, RowsReply, decode
from dosql.client.rows import Rows, RunResult, convert_rows, rows_from_json, table_from_json
from dosql.wire.statements import RunReply


def all_rows(reply: Reply, into: type[Any] | None) -> list[Any]:
    """Of ``query``, as dicts or as instances of ``into``."""
    rows = rows_from_json(decode(reply, QueryReply).rows)
    return rows if into is None else convert_rows(rows, into)


def first_row(reply: Reply, into: type[Any] | None) -> Any:
    """Of ``queryOne``; None if there is none."""
    row = decode(reply, QueryOneReply).row
    if row is None:
        return None
    rows = rows_from_json([row])
    return rows[0] if into is None else convert_rows(rows, into)[0]


def table(reply: Reply) -> Rows:
    """Of ``query`` with rows as arrays."""
    decoded = decode(reply, RowsReply)
    return table_from_json(decoded.columns, decoded.rows)


def run_result(reply: Reply) -> RunResult:
    """Of ``run``."""
    done = decode(reply, RunReply)
    return RunResult(done.changes, done.last_insert_rowid)
