"""TurnAccess: the object's database, for code that has the object's turn."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dosql.errors import ConflictError
from dosql.objects.access import Access
from dosql.objects.events import current_event
from dosql.sqlite.database import Database

if TYPE_CHECKING:
    from dosql.objects.activation import Activation

T = TypeVar("T")


class TurnAccess(Access):
    """That of one activation. ``statement_s``: what the statements of one step may take."""

    def __init__(self, activation: Activation, statement_s: float) -> None:
        self.is_loose = False
        """Storage is used by code that runs in no step; `_end_loose` is on its way."""
        self._activation = activation
        self._ground = activation.ground
        self._statement_s = statement_s
        self._thread: asyncio.Task[Any] | None = None
        """Work on a thread, which has the database until it ends."""
        self._sync_depth = 0

    # --- see `Access` -------------------------------------------------------------------------

    def read(self) -> Database:
        if self._activation.stepping is None:
            self._use_loosely()
        elif self._activation.ended is not None:
            self._activation.check_alive()
        return self._ground.db

    def write(self, *, confirmed: bool = True) -> Database:
        db = self.read()
        self._activation.effects += 1
        if not self._activation.sections.in_transaction:
            self._activation.commits.expect(confirmed=confirmed)
        return db

    async def on_thread(self, work: Callable[[Database], T]) -> T:
        ground = self._ground

        async def body() -> T:
            db = self.write()
            db.set_deadline(ground.statement_s, on_thread=True)

            def in_savepoint(db: Database) -> T:
                with db.savepoint():
                    return work(db)

            running = ground.run_on_thread(in_savepoint, ground.statement_s)
            thread = self._thread = asyncio.get_running_loop().create_task(running)

            def ended(_: asyncio.Task[T]) -> None:
                self._thread = None

            thread.add_done_callback(ended)
            return await asyncio.shield(thread)

        return await self.transaction(body)

    def not_in_transaction(self, what: str) -> None:
        if self._sync_depth or self._activation.sections.in_transaction:
            raise ConflictError(
                f"{what} is not possible in a transaction.", code="transaction_open"
            )

    # --- steps --------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """From now on the time of its statements is counted."""
        self._ground.db.set_deadline(self._statement_s)

    def leave_turn(self) -> None:
        """Nothing of the object's code uses the database any more."""
        if self._thread is None:
            self._ground.turns.leave()
        else:  # the object was reset, and the thread knows nothing of it
            self._thread.add_done_callback(lambda _: self._ground.turns.leave())

    def undo(self) -> None:
        """The object was reset: roll back what is not committed."""
        if self._thread is None and self._ground.db.broken is None:
            self._ground.db.rollback()

    def _use_loosely(self) -> None:
        """Storage is used outside of any step: by a task or callback that the object's code left
        behind, or in a test without a host. That stretch becomes a step of its own."""
        self._activation.check_alive()
        if self.is_loose:
            return
        section = self._activation.sections.innermost
        event = current_event.get()
        inside = (
            section is not None
            and event is not None
            and event.section is section
            and self._thread is None
        )
        if not inside:
            if not self._ground.turns.try_enter():
                raise ConflictError(
                    "The object's storage is in use: another event is in a critical section.",
                    code="storage_busy",
                    retryable=True,
                )
            self._ground.check_open()
        self.begin_step()
        self.is_loose = True
        self._ground.pins += 1
        asyncio.get_running_loop().call_soon(self._end_loose, not inside)

    def _end_loose(self, leave: bool) -> None:
        activation = self._activation
        self.is_loose = False
        self._ground.pins -= 1
        if activation.ended is None:
            activation.commits.settle()
        if leave or activation.sections.are_asked_for:
            activation.sections.pass_turn(current_event.get())

    # --- transactions -------------------------------------------------------------------------

    def transaction_sync(self, body: Callable[[], T]) -> T:
        """Run ``body`` so that what it wrote is undone if it raises. May be nested.

        Raises:
            ConflictError: ``transaction_not_sync``: it returned something to await.
        """
        db = self.write()
        self._sync_depth += 1
        try:
            with db.savepoint():
                value = body()
                if inspect.isawaitable(value):
                    if inspect.iscoroutine(value):
                        value.close()
                    raise ConflictError(
                        "transaction_sync takes a function without async; use transaction.",
                        code="transaction_not_sync",
                    )
                return value
        finally:
            self._sync_depth -= 1

    async def transaction(self, body: Callable[[], Awaitable[T]]) -> T:
        """Run ``body`` as a critical section whose writes are one transaction: committed when it
        returns, undone when it raises. May be nested."""
        activation = self._activation

        async def transactional() -> T:
            section = activation.sections.innermost
            assert section is not None
            nested = section.in_transaction
            point = self._ground.db.savepoint()
            point.__enter__()
            section.transactional = True
            try:
                value = await body()
            except BaseException as error:
                section.transactional = False
                if activation.ended is None:
                    point.__exit__(type(error), error, error.__traceback__)
                raise
            section.transactional = False
            if nested:
                point.__exit__(None, None, None)
            else:
                activation.commits.commit(lambda: point.__exit__(None, None, None), confirm=True)
            return value

        return await activation.sections.run(transactional)

    def wipe(self, *, confirmed: bool) -> None:
        """Leave an empty database. Within a step, outside of transactions.

        What the step wrote before is committed first: emptying is a transaction of its own.
        """
        self.write(confirmed=confirmed)
        self._activation.commits.settle()
        self._activation.check_alive()
        self._ground.db.wipe()
        self._activation.commits.happened(confirm=confirmed)
