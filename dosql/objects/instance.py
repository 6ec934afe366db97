"""Instance: one awake object. Its database, its turns, and the gate its replies pass.

Invariants:
- All work on the database happens within a turn, on the event loop or on one worker thread.
- What `call` returns reflects only commits that are durable (the output gate).
- Broken is final: after a failed commit or a critical error every call fails, the file is given
  up without a checkpoint, and the host wakes a new instance from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

import msgspec

from dosql.bookmarks import Bookmark
from dosql.clock import Clock
from dosql.errors import BudgetError, DosqlError, UnavailableError
from dosql.limits import REPLICA_WAIT_S
from dosql.log.group_commit import Flush, GroupCommit
from dosql.log.records import Batch, ObjectKey, Record
from dosql.objects.commit_progress import CommitProgress, Replication
from dosql.objects.ground import Past
from dosql.objects.thread_work import ThreadWork
from dosql.objects.turns import Turns
from dosql.objects.wal_tail import WalTail
from dosql.sqlite.database import Database

T = TypeVar("T")

UNCONFIRMED_S = 1.0
"""How long commits that nobody waits for may stay out of the log: so many of them share a sync."""


class InstanceClosed(Exception):
    """The object went to sleep between the look-up and the turn: look it up again."""


class Budgets(msgspec.Struct, frozen=True):
    """How long work may take, in seconds."""

    inline_s: float
    """On the event loop, where it delays everybody."""
    statement_s: float
    """On a worker thread, where it delays its own object."""


class Instance:
    """Made by the host, which alone opens, hibernates and evicts."""

    def __init__(
        self,
        key: ObjectKey,
        path: Path,
        db: Database,
        txid: int,
        *,
        commits: GroupCommit,
        clock: Clock,
        workers: Executor,
        budgets: Budgets,
        on_broken: Callable[[Instance], None],
        replication: Replication | None = None,
    ) -> None:
        """``replication``: what a commit must reach beside the log before it counts as durable."""
        self.key = key
        self.path = path
        self.db = db
        self.turns = Turns()
        self.closed = False
        self.broken: DosqlError | None = None
        self.used_at = clock.monotonic()
        """When the last call came, on the monotonic clock."""
        self.txid = txid
        """Newest batch handed to the log."""
        self.woken_txid = txid
        """What the file held when the object was woken."""
        self.past: Past | None = None
        """What is kept of its past; None: nothing."""
        self.pins = 0
        self.on_durable: Callable[[], None] = _nobody
        self._size_bytes = db.size_bytes
        self._tail = WalTail(path, db)
        self._progress = CommitProgress(
            txid, replication, on_moved=self._durable_moved, on_failed=self.break_
        )
        self._confirmed_txid = txid  # newest batch that a reply must wait for
        self._later: asyncio.TimerHandle | None = None  # unconfirmed commits wait for it
        self._flush: Flush | None = None
        self._commits = commits
        self._clock = clock
        self._threads = ThreadWork(db, workers)
        self._budgets = budgets
        self._on_broken = on_broken
        db.next_txid = lambda: self.txid + 1

    # --- calls --------------------------------------------------------------------------------

    async def call(
        self, work: Callable[[Database], T], *, confirmed: bool = True
    ) -> tuple[T, Bookmark]:
        """Run ``work`` as one event; return when all it saw and wrote is durable.

        Work that outlasts its inline budget is rolled back and run again on a worker thread.
        A cancelled call leaves the work either done or not begun, never half.

        With ``confirmed=False`` neither this call nor any later one waits for what ``work``
        wrote: it goes to the log with the next confirmed commit, within `UNCONFIRMED_S` at the
        latest, and a crash before that undoes it. Only for tables of the server's, which no
        reply shows; the bookmark leaves it out.

        Raises:
            InstanceClosed: the object went to sleep meanwhile.
            OverloadedError: the queue was too long, or the wait.
            DosqlError: whatever ``work`` raised, or the commit did.
        """
        if not self.turns.try_enter():
            await self.turns.enter()
        leave = True
        try:
            self.check_open()
            self.used_at = self._clock.monotonic()
            try:
                value = self.run_inline(work, confirmed=confirmed)
            except BudgetError as error:
                if error.code != "query_timeout":
                    raise
                await self.number_commits()
                leave = False
                value, txid = await self._run_on_worker(work, self._budgets.statement_s)
            else:
                txid = self._confirmed_txid
        finally:
            if leave:
                self.turns.leave()
        if txid > self.durable_txid and confirmed:
            await self.durable(txid)
        return value, Bookmark(txid, self.key.incarnation)

    @property
    def statement_s(self) -> float:
        """What one piece of work may take on a worker thread, in seconds."""
        return self._budgets.statement_s

    def check_open(self) -> None:
        """Raises InstanceClosed if it sleeps, the reason's kind if it is broken."""
        if self.closed:
            raise InstanceClosed
        if self.broken is not None:
            raise self._refusal()
        if self._progress.is_beyond_log:
            self.db.refuse_writes(self._progress.refusal)

    def run_inline(self, work: Callable[[Database], T], *, confirmed: bool = True) -> T:
        """Run ``work`` on the loop within the turn. BudgetError: rolled back, took too long."""
        db = self.db
        db.set_deadline(self._budgets.inline_s, movable=True)
        try:
            return work(db)
        finally:
            self.after_work(confirmed=confirmed)

    async def number_commits(self) -> None:
        """Within the turn, before work that the log may overtake: the commit of it must be in a
        batch of its own, because captured changes carry that batch's number."""
        if self.db.capture is not None:
            await self.flush()

    async def run_on_thread(self, work: Callable[[Database], T], seconds: float) -> T:
        """Run ``work`` on a worker thread within a turn that the caller keeps."""
        return await self._threads.run(work, seconds)

    async def _run_on_worker(self, work: Callable[[Database], T], seconds: float) -> tuple[T, int]:
        """Run ``work`` on a worker thread and leave the turn when it has ended, come what may.

        With the newest batch as of its end: others may have had their turns before we hear of it.
        """
        txid = self._confirmed_txid
        future = self._threads.begin(work, seconds)

        def ended(_: asyncio.Future[T]) -> None:
            nonlocal txid
            self.after_work()
            txid = self._confirmed_txid
            self.turns.leave()

        future.add_done_callback(ended)
        value = await asyncio.shield(future)
        return value, txid

    def after_work(self, *, confirmed: bool = True) -> None:
        """On the loop, after any work within the turn: pass commits on, notice a broken file."""
        db = self.db
        if db.broken is not None:
            self.break_(db.broken)
        elif self._tail.has_grown():
            if confirmed:
                # Not always the next batch: the log may have taken along what a worker thread
                # committed, before the loop heard of the work's end.
                self._confirmed_txid = self.bookmark.txid
                self._pass_on()
            elif self._later is None:
                loop = asyncio.get_running_loop()
                self._later = loop.call_later(UNCONFIRMED_S, self._pass_on_unconfirmed)

    def _pass_on_unconfirmed(self) -> None:
        """What nobody waits for, if nothing else has taken it along meanwhile."""
        self._later = None
        if self.broken is None and not self.closed and not self._tail.is_empty:
            self._pass_on()

    def _pass_on(self) -> None:
        """Have the log take what is committed; if it must go further than the log, only when
        what went before has arrived: then that is one batch, however much came meanwhile."""
        if not self._progress.is_beyond_log or self.durable_txid == self.txid:
            self._flush = self._commits.committed(self)

    # --- durability ---------------------------------------------------------------------------

    @property
    def bookmark(self) -> Bookmark:
        """The state as it is now; durable once `durable` returns."""
        return Bookmark(self.txid + (not self._tail.is_empty), self.key.incarnation)

    @property
    def logged_txid(self) -> int:
        """Newest batch the log has acknowledged."""
        return self._progress.logged_txid

    @property
    def durable_txid(self) -> int:
        """See `Ground`: where the durability mode wants it."""
        return self._progress.durable_txid

    async def durable(self, txid: int) -> None:
        """The output gate: return when everything up to ``txid`` is durable.

        ``txid`` is that of a `bookmark`. Raises what the commit failed with.
        """
        if txid > self.txid and self.broken is None:
            self._pass_on()  # it may hold unconfirmed commits, which wait for nobody
        if self._progress.is_beyond_log:
            if self.broken is not None:
                raise self._refusal()
            await self._progress.arrived(txid, REPLICA_WAIT_S)
            return
        if self._flush is not None:
            await self._flush.wait()
        if self.durable_txid < txid:  # it broke before the log was asked
            raise self._refusal()

    def take(self) -> Callable[[], Record] | None:
        """See `CommitSource`: everything up to now becomes one batch."""
        if self._tail.is_empty or self.broken is not None:
            return None
        self.txid += 1
        key, txid, pages, now_ms = self.key, self.txid, self._tail.take(), self._clock.now_ms()
        return lambda: Batch(key, txid, now_ms, pages())

    def flushed(self, error: DosqlError | None) -> None:
        """See `CommitSource`."""
        if error is None:
            self._progress.logged(self.txid)
        else:
            self.break_(error)

    def _durable_moved(self) -> None:
        if self._progress.is_beyond_log and not self.closed and not self._tail.is_empty:
            self._pass_on()
        self.on_durable()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a commit to arrive beyond the log."""
        return self._progress.is_awaited

    @property
    def wal_bytes(self) -> int:
        """Pages in the ``-wal``, in bytes; it only shrinks by `checkpoint`."""
        return self.db.wal_frames * self.db.page_size

    async def quiet(self) -> None:
        """After it broke: return when the log's thread no longer reads its WAL."""
        if self._flush is not None:
            with contextlib.suppress(DosqlError):
                await self._flush.wait()

    @property
    def size_bytes(self) -> int:
        """Size of the database, as of its last turn."""
        if not self.turns.busy and not self.closed:
            self._size_bytes = self.db.size_bytes
        return self._size_bytes

    async def flush(self) -> None:
        """Within the turn: return when nothing is left that the log does not have."""
        while (txid := self.bookmark.txid) != self.logged_txid:
            if self.txid != txid:
                self._flush = self._commits.committed(self)
            if self._flush is not None:
                await self._flush.wait()
            if self.logged_txid < txid:
                raise self._refusal()
        self._size_bytes = self.db.size_bytes

    def checkpoint(self) -> None:
        """Within the turn, after `flush`: move the WAL into the file. May run on a thread."""
        durable = self.logged_txid == self.txid and self._tail.is_empty
        assert durable, "a checkpoint must never pass the log"
        self.db.checkpoint()
        self._tail.checkpointed()

    def close(self) -> None:
        """Give the file back as it is. Within the turn, or after the instance broke."""
        self.closed = True
        if self._later is not None:
            self._later.cancel()
        self.db.close()
        self._tail.close()

    def break_(self, error: DosqlError) -> None:
        """Refuse everything from now on."""
        if self.broken is None:
            self.broken = error
            self._on_broken(self)
            self._progress.fail(self._refusal())
            self.on_durable()

    def _refusal(self) -> DosqlError:
        assert self.broken is not None
        if self.broken.code in ("object_corrupt", "outcome_unknown", "disk_full"):
            kind = type(self.broken)
            return kind(self.broken.message, code=self.broken.code)
        if self.broken.code == "object_moved":
            return UnavailableError(self.broken.message, code="object_moved", retry_after_s=1)
        return UnavailableError(
            "The object is being rebuilt after a failure; nothing was written.",
            code="object_recovering",
            retry_after_s=1,
        )


def _nobody() -> None:
    pass
