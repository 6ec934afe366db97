"""ThreadWork: work on an object's database that a worker thread does, within the object's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from dosql.sqlite.database import Database

T = TypeVar("T")


class ThreadWork:
    """Of one object; whoever asks for it has the turn until the work has ended."""

    def __init__(self, db: Database, workers: Executor) -> None:
        self._db = db
        self._workers = workers

    def begin(self, work: Callable[[Database], T], seconds: float) -> asyncio.Future[T]:
        """Its outcome. Cancelling that does not stop the thread."""
        return asyncio.wrap_future(self._workers.submit(self._work, work, seconds))

    async def run(self, work: Callable[[Database], T], seconds: float) -> T:
        """Return when it has ended, even if the caller is cancelled meanwhile."""
        future = self.begin(work, seconds)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def _work(self, work: Callable[[Database], T], seconds: float) -> T:
        self._db.set_deadline(seconds, on_thread=True)
        try:
            return work(self._db)
        finally:
            self._db.set_deadline(None)  # or the watchdog would go on looking at an idle object
