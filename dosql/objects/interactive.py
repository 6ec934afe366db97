"""InteractiveTransaction: a transaction that lasts over several calls, and holds the object's turn.

Reads in it really read and writes are seen by later reads of it. Everybody else waits, so its life
is short: it is rolled back when nothing comes for ``idle_s``, at its absolute deadline, when the
client goes away, and when the object breaks.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from dosql.bookmarks import Bookmark
from dosql.clock import Clock
from dosql.errors import BudgetError, ConflictError, DosqlError, NotFoundError, QuotaError
from dosql.objects.idempotency import Idempotency, Work, store_outcome
from dosql.objects.instance import Instance
from dosql.sqlite.database import Database

T = TypeVar("T")


class InteractiveTransaction:
    """Made by `open`, which waits for the object's turn."""

    def __init__(
        self, id: str, instance: Instance, *, clock: Clock, idle_s: float, life_s: float
    ) -> None:
        self.id = id
        self.idle_s = idle_s
        self.expires_at_ms = clock.now_ms() + int(life_s * 1000)
        self._instance = instance
        self._clock = clock
        self._ends_at = clock.monotonic() + life_s
        self._calls = asyncio.Lock()
        self._closed = asyncio.Event()
        self._reason: str | None = None
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(idle_s, self._expire, "it was idle for too long")
        self._life_timer = loop.call_later(life_s, self._expire, "its time was up")

    @classmethod
    async def open(
        cls, id: str, instance: Instance, *, clock: Clock, idle_s: float, life_s: float
    ) -> InteractiveTransaction:
        """Wait for the turn and begin.

        Raises:
            InstanceClosed, OverloadedError: the transaction was not begun.
        """
        await instance.turns.enter()
        try:
            instance.check_open()
            await instance.number_commits()
            instance.db.set_deadline(None)
            instance.db.begin()
        except BaseException:
            instance.turns.leave()
            raise
        return cls(id, instance, clock=clock, idle_s=idle_s, life_s=life_s)

    async def call(self, work: Work) -> bytes:
        """Run ``work`` in the transaction. A failed statement leaves the transaction open.

        Raises:
            NotFoundError: ``transaction_not_found``: it has ended.
            ConflictError: ``transaction_aborted``: SQLite rolled it back.
        """
        async with self._calls:
            self._check_open()
            self._idle_timer.cancel()
            instance = self._instance
            try:
                seen = instance.bookmark
                body = await instance.run_on_thread(work, self._remaining_s())
                if seen.txid > instance.durable_txid:
                    await instance.durable(seen.txid)
            except (BudgetError, QuotaError):
                self._after_call()
                raise  # says more than that SQLite rolled the transaction back because of it
            except BaseException:
                if not self._after_call():
                    raise _aborted() from None
                raise
            if not self._after_call():
                raise _aborted()
        return body

    async def commit(self, outcome: bytes, idempotency: Idempotency | None) -> Bookmark:
        """Commit; return when it is durable. With a key, ``outcome`` can be replayed later.

        Raises:
            NotFoundError, ConflictError: as `call`.
            DosqlError: the commit failed: a deferred constraint, the disk.
        """
        async with self._calls:
            self._check_open()
            instance, clock = self._instance, self._clock

            def work(db: Database) -> None:
                if idempotency is not None:
                    store_outcome(db, idempotency, outcome, clock.now_ms())
                db.commit()

            try:
                await instance.run_on_thread(work, self._remaining_s())
            finally:
                bookmark = instance.bookmark
                self._end("it was committed")
        await instance.durable(bookmark.txid)
        return bookmark

    async def rollback(self) -> None:
        """Undo everything; a second time, or after the end, it does nothing."""
        async with self._calls:
            self._end("it was rolled back")

    async def wait_closed(self) -> None:
        """Return when it has ended, for whatever reason."""
        await self._closed.wait()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed.is_set()

    def _remaining_s(self) -> float:
        budget = self._instance.statement_s
        return max(0.001, min(budget, self._ends_at - self._clock.monotonic()))

    def _check_open(self) -> None:
        if self.closed:
            raise NotFoundError(
                f"The transaction has ended: {self._reason}.", code="transaction_not_found"
            )

    def _after_call(self) -> bool:
        """Within a call's lock: keep going, or notice what ended it. False: SQLite did."""
        instance = self._instance
        if instance.db.broken is not None:
            self._end("the object failed")
        elif not instance.db.in_transaction:
            self._end("SQLite rolled it back")
            return False
        elif self._clock.monotonic() >= self._ends_at:
            self._end("its time was up")
        else:
            self._idle_timer = asyncio.get_running_loop().call_later(
                self.idle_s, self._expire, "it was idle for too long"
            )
        return True

    def _expire(self, reason: str) -> None:
        if not self._calls.locked():  # a call under way looks at the clock when it ends
            self._end(reason)

    def _end(self, reason: str) -> None:
        """Roll back what is open and give the turn back; once."""
        if self.closed:
            return
        self._reason = reason
        self._closed.set()
        self._idle_timer.cancel()
        self._life_timer.cancel()
        instance = self._instance
        try:
            instance.db.rollback()
        except DosqlError as error:
            instance.break_(error)
        finally:
            instance.after_work()
            instance.turns.leave()


def _aborted() -> ConflictError:
    return ConflictError(
        "SQLite rolled the whole transaction back; nothing of it was applied.",
        code="transaction_aborted",
    )
