"""Statements: one, several at once, and what they answer."""

from __future__ import annotations

from typing import Any, Literal

from dosql.wire.body import Body


class SqlRequest(Body, forbid_unknown_fields=True):
    """Body of ``/query``, ``/queryOne`` and ``/run``."""

    sql: str
    params: list[Any] | dict[str, Any] | None = None


class Operation(Body, forbid_unknown_fields=True):
    """One step of a transaction."""

    type: Literal["query", "queryOne", "run"]
    sql: str
    params: list[Any] | dict[str, Any] | None = None


class TransactionRequest(Body, forbid_unknown_fields=True):
    """Body of ``/transaction``: all operations, or none."""

    operations: list[Operation]


class RunReply(Body, omit_defaults=False):
    """What ``run`` did."""

    changes: int
    last_insert_rowid: int


class TransactionOpened(Body):
    """Reply of ``POST /transactions``; then statements go to ``/transactions/{id}/...``."""

    id: str
    expires_at: str
    idle_seconds: float
