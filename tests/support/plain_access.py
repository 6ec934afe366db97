"""Storage faces over a bare database, without an object: every commit is the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dosql.sqlite.database import Database

T = TypeVar("T")


class PlainAccess:
    """`Access` whose implicit transaction lasts until `commit` or `roll_back`."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def read(self) -> Database:
        return self.db

    def write(self, *, confirmed: bool = True) -> Database:
        if not self.db.in_transaction:
            self.db.begin()
        return self.db

    async def on_thread(self, work: Callable[[Database], T]) -> T:
        return work(self.db)

    def not_in_transaction(self, what: str) -> None:
        pass

    def commit(self) -> None:
        if self.db.in_transaction:
            self.db.commit()

    def roll_back(self) -> None:
        self.db.rollback()
