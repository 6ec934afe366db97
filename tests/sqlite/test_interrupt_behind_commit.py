"""SQLite looks at the deadline once more when a statement has ended: too late to undo it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dosql.clock import SystemClock
from dosql.sqlite import budget
from dosql.sqlite.database import Database


class LateClock(SystemClock):
    """Past every deadline as soon as the database has begun a commit."""

    db: Database | None = None

    def monotonic(self) -> float:
        return super().monotonic() + (1e6 if self.db and self.db._connection.changes() else 0)


def test_a_write_that_was_committed_is_not_reported_as_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "PROGRESS_STEPS", 1)
    clock = LateClock()
    db = Database(str(tmp_path / "late.sqlite"), clock=clock)
    db.run("CREATE TABLE notes(body TEXT)")
    frames = db.wal_frames
    db.set_deadline(60)
    clock.db = db
    assert db.run("INSERT INTO notes VALUES ('once')").changes == 1
    assert db.wal_frames > frames, "the log would not have heard of it"
    clock.db = None
    assert db.query("SELECT count(*) FROM notes").rows == [(1,)]
    db.close()


def test_a_database_that_was_closed_is_not_interrupted_at_its_last_deadline(
    tmp_path: Path,
) -> None:
    """The error would end the thread that watches all deadlines."""
    db = Database(str(tmp_path / "closed.sqlite"), clock=SystemClock())
    db.set_deadline(0, on_thread=True)
    db.close()
    db._budget.stop_overdue()
    assert db._budget.watch == 0
