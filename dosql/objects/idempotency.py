"""Idempotency: a write sent twice with one key is applied once, and both get the first outcome.

The outcome is stored in the object, in the transaction of the write itself: whoever finds it knows
that the write was applied, whoever does not knows that it was not. A method of a class that only
read has no outcome to be stored: it may be called again without harm.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dosql.errors import ConflictError
from dosql.limits import IDEMPOTENCY_KEEP_MS
from dosql.objects.internal_table import InternalTable
from dosql.sqlite.database import Database

Work = Callable[[Database], bytes]
"""Runs statements and encodes the reply. It may run on a worker thread, and twice (the first try
is rolled back when its inline budget runs out): no side effects but the database's."""

_TABLE = InternalTable(
    "_dosql_idempotency",
    """(
  key TEXT PRIMARY KEY,
  fingerprint BLOB NOT NULL,
  outcome BLOB NOT NULL,
  created_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS _dosql_idempotency_created ON _dosql_idempotency(created_at_ms)""",
)
_PRUNED_AT_ONCE = 10


class Idempotency(msgspec.Struct, frozen=True):
    """What the client sent to make a write repeatable."""

    key: str
    fingerprint: bytes
    """Hash of the request: the same key for another request is a mistake."""


def stored_outcome(db: Database, idempotency: Idempotency, now_ms: int) -> bytes | None:
    """The first outcome, if there was one within the last 24 hours.

    Raises:
        ConflictError: ``idempotency_key_reused``: the key came with another request before.
    """
    rows = _TABLE.query(
        db,
        "SELECT fingerprint, outcome FROM _dosql_idempotency WHERE key = ? AND created_at_ms > ?",
        (idempotency.key, now_ms - IDEMPOTENCY_KEEP_MS),
    )
    if not rows:
        return None
    fingerprint, outcome = rows[0]
    if fingerprint != idempotency.fingerprint:
        raise ConflictError(
            "This idempotency key was used for a different request.",
            code="idempotency_key_reused",
        )
    assert isinstance(outcome, bytes)
    return outcome


def store_outcome(db: Database, idempotency: Idempotency, outcome: bytes, now_ms: int) -> None:
    """Remember the outcome, in the current transaction; forget a few old ones."""
    _TABLE.delete(
        db,
        "DELETE FROM _dosql_idempotency WHERE key IN (SELECT key FROM _dosql_idempotency"
        " WHERE created_at_ms <= ? ORDER BY created_at_ms LIMIT ?)",
        (now_ms - IDEMPOTENCY_KEEP_MS, _PRUNED_AT_ONCE),
    )
    _TABLE.insert(
        db,
        "INSERT OR REPLACE INTO _dosql_idempotency VALUES (?, ?, ?, ?)",
        (idempotency.key, idempotency.fingerprint, outcome, now_ms),
    )
