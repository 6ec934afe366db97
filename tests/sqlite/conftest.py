"""Databases on real files, and a clock that tests drive by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dosql.sqlite.database import Database, DatabaseLimits

Open = Callable[..., Database]


class ManualClock:
    """Time stands still, or advances by ``step`` seconds at each look."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.step = 0.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        self.seconds += self.step
        return self.seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_database(tmp_path: Path, clock: ManualClock) -> Iterator[Open]:
    """Open a file below the test's folder; all are closed at the end."""
    opened: list[Database] = []

    def open_it(
        name: str = "tenant.db",
        *,
        limits: DatabaseLimits | None = None,
        vfs: str | None = None,
        folder: Path = tmp_path,
    ) -> Database:
        database = Database(
            str(folder / name), clock=clock, limits=limits or DatabaseLimits(), vfs=vfs
        )
        opened.append(database)
        return database

    yield open_it
    for database in opened:
        database.close()


@pytest.fixture
def db(open_database: Open) -> Database:
    """An empty database."""
    return open_database()


@pytest.fixture
def notes(db: Database) -> Database:
    """A database with one table and three rows."""
    db.exec(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);"
        "INSERT INTO notes (body) VALUES ('one'), ('two'), ('three');"
    )
    return db
