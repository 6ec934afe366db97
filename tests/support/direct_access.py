"""The storage faces over a database without an activation: one event that never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from dosql.errors import ConflictError
from dosql.sqlite.database import Database

T = TypeVar("T")


class DirectAccess:
    """`Access` of one event. `commit` is the end of its step."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.writes: list[bool] = []
        """For each write, whether it was to be confirmed."""

    def read(self) -> Database:
        return self.db

    def write(self, *, confirmed: bool = True) -> Database:
        self.writes.append(confirmed)
        if not self.db.in_transaction:
            self.db.begin()
        return self.db

    async def on_thread(self, work: Callable[[Database], T]) -> T:
        self.commit()

        def run() -> T:
            with self.db.transaction():
                return work(self.db)

        return await asyncio.to_thread(run)

    def not_in_transaction(self, what: str) -> None:
        if self.db.in_transaction:
            raise ConflictError(f"{what} is not possible here.", code="transaction_open")

    def commit(self) -> None:
        """End the step."""
        if self.db.in_transaction:
            self.db.commit()

    def rollback(self) -> None:
        """Undo the step."""
        self.db.rollback()
