"""Alarm table: the alarms of one object as they stand in its database.

A row stays while its handler runs, so that a crash in the middle runs it again. The revision
tells a row that was set anew from the one that runs; being in the row, it is rolled back with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dosql.objects.internal_table import InternalTable
from dosql.objects.values import decode_value
from dosql.sqlite.database import Database
from dosql.wire.values import SqlValue

# Two statements: what SQLite is asked most often is the earliest.
_TABLE = InternalTable(
    "_dosql_alarms",
    """(
    name TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    scheduled_ms INTEGER NOT NULL,
    cron TEXT,
    timezone TEXT,
    retry_count INTEGER NOT NULL,
    faults INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    data BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX _dosql_alarms_by_time ON _dosql_alarms(at_ms)""",
)
_ROW = (
    "SELECT name, at_ms, scheduled_ms, cron, timezone, retry_count, faults, revision, data"
    " FROM _dosql_alarms"
)
_PUT = "INSERT OR REPLACE INTO _dosql_alarms VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """One alarm."""

    name: str
    """Empty: the one of `set_alarm`."""
    at_ms: int
    """When it is to run next: its time, or that of a retry."""
    scheduled_ms: int
    """The time it was set for."""
    cron: str | None
    timezone: str | None
    retry_count: int
    """Failures that counted: see `alarm_retries`."""
    faults: int
    """Failures since the last of those, which did not."""
    revision: int
    encoded: bytes | None
    """Its data."""

    @property
    def data(self) -> Any:
        """What it was scheduled with. Raises CorruptError."""
        return None if self.encoded is None else decode_value(self.encoded)


def find(db: Database, name: str) -> AlarmRow | None:
    """The alarm of this name."""
    rows = _TABLE.query(db, f"{_ROW} WHERE name = ?", (name,))
    return _row(rows[0]) if rows else None


def all_rows(db: Database) -> list[AlarmRow]:
    """Every alarm, in name order."""
    return [_row(row) for row in _TABLE.query(db, f"{_ROW} ORDER BY name")]


def due(db: Database, now_ms: int) -> list[str]:
    """The names of the alarms whose time has come, the longest overdue first."""
    rows = _TABLE.query(
        db, "SELECT name FROM _dosql_alarms WHERE at_ms <= ? ORDER BY at_ms, name", (now_ms,)
    )
    return [str(name) for (name,) in rows]


def earliest(db: Database) -> int | None:
    """When the object wants to be woken: the least ``at_ms``; None: it has no alarm."""
    rows = _TABLE.query(db, "SELECT at_ms FROM _dosql_alarms ORDER BY at_ms LIMIT 1")
    if not rows:
        return None
    at_ms = rows[0][0]
    assert isinstance(at_ms, int)
    return at_ms


def count(db: Database) -> int:
    """How many there are."""
    rows = _TABLE.query(db, "SELECT count(*) FROM _dosql_alarms")
    return int(str(rows[0][0])) if rows else 0


def put(db: Database, row: AlarmRow) -> None:
    """Store the alarm, in place of the one of its name."""
    _TABLE.insert(
        db,
        _PUT,
        (
            row.name,
            row.at_ms,
            row.scheduled_ms,
            row.cron,
            row.timezone,
            row.retry_count,
            row.faults,
            row.revision,
            row.encoded,
        ),
    )


def delete(db: Database, name: str) -> None:
    """Remove the alarm of this name, if there is one."""
    _TABLE.delete(db, "DELETE FROM _dosql_alarms WHERE name = ?", (name,))


def _row(row: tuple[SqlValue, ...]) -> AlarmRow:
    name, at_ms, scheduled, cron, timezone, retries, faults, revision, data = row
    assert isinstance(name, str) and isinstance(at_ms, int) and isinstance(scheduled, int)
    assert cron is None or isinstance(cron, str)
    assert timezone is None or isinstance(timezone, str)
    assert isinstance(retries, int) and isinstance(faults, int) and isinstance(revision, int)
    assert data is None or isinstance(data, bytes)
    return AlarmRow(name, at_ms, scheduled, cron, timezone, retries, faults, revision, data)
