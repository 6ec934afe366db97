"""GroupCommit: one append to the commit log for everything that was committed meanwhile.

Objects say that they have committed; whoever must wait gets the `Flush` that will cover it. One
flush is under way at a time, on a thread of its own, so the event loop never waits for the disk,
and what arrives during one sync shares the next.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from dosql.errors import DosqlError, OutcomeUnknownError, QuotaError, UnavailableError
from dosql.log.node_log import CommitLog, LogWriteError
from dosql.log.records import Record

_log = logging.getLogger("dosql.log")


class CommitSource(Protocol):
    """An object with commits that the log does not have yet."""

    def take(self) -> Callable[[], Record] | None:
        """Mark all commits so far as taken; the call that gathers them (on the log's thread).

        None if there are none.
        """
        ...

    def flushed(self, error: DosqlError | None) -> None:
        """What was taken is durable, or, with ``error``, must be given up."""
        ...


class Flush:
    """One append to the log, under way or to come."""

    __slots__ = ("_error", "_waiters", "done")

    def __init__(self) -> None:
        self.done = False
        self._error: DosqlError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return when it is durable.

        Raises:
            DosqlError: it is not: UnavailableError or QuotaError (nothing was written), or
                OutcomeUnknownError.
        """
        if not self.done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error.renewed()

    def resolve(self, error: DosqlError | None) -> None:
        """Open the gate for all waiters, or fail them."""
        self.done = True
        self._error = error
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


_Gather = Callable[[], Record]
_Job = tuple[Flush, list[tuple[CommitSource, _Gather]], list[Record]]
_Outcome = dict[CommitSource, DosqlError | None]


class GroupCommit:
    """Belongs to one event loop and one commit log."""

    def __init__(
        self,
        log: CommitLog,
        on_flushed: Callable[[list[CommitSource]], None] | None = None,
        on_appended: Callable[[list[Record]], None] | None = None,
    ) -> None:
        """``on_appended``: what is in the log now, before anybody who waits hears of it."""
        self._log = log
        self._on_flushed = on_flushed
        self._on_appended = on_appended
        self._loop = asyncio.get_running_loop()
        self._dirty: dict[CommitSource, None] = {}
        self._records: list[Record] = []
        self._next = Flush()
        self._current: Flush | None = None
        self._scheduled = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="dosql-log", daemon=True)
        self._thread.start()
        self.batches = 0
        """Batches handed to the log since the start."""

    def committed(self, source: CommitSource) -> Flush:
        """``source`` has committed: the flush that will cover it."""
        self._dirty[source] = None
        self._schedule()
        return self._next

    def add(self, record: Record) -> Flush:
        """Append a record of the host's own, in the same flush as what is committed now."""
        self._records.append(record)
        self._schedule()
        return self._next

    async def idle(self) -> None:
        """Return when nothing is under way and nothing waits."""
        while self._current is not None or self._dirty or self._records:
            flush = self._next if self._current is None else self._current
            try:
                await flush.wait()
            except DosqlError:
                continue

    def close(self) -> None:
        """End the thread. Call `idle` before."""
        self._jobs.put(None)
        self._thread.join()

    def _schedule(self) -> None:
        if self._current is None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        if self._current is not None or not (self._dirty or self._records):
            return
        dirty, self._dirty = self._dirty, {}
        records, self._records = self._records, []
        taken = [(source, gather) for source in dirty if (gather := source.take()) is not None]
        flush, self._next = self._next, Flush()
        self._current = flush
        self.batches += len(taken)
        self._jobs.put((flush, taken, records))

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            flush, taken, records = job
            outcome: _Outcome = {}
            for source, gather in taken:
                try:
                    records.append(gather())
                    outcome[source] = None
                except Exception as failure:  # this object is broken; the others are not
                    _log.exception("the commits of an object could not be read back")
                    outcome[source] = as_dosql_error(failure)
            error: DosqlError | None = None
            try:
                if records:
                    self._log.append(records)
            except Exception as failure:
                _log.exception("commits could not be made durable")
                error = as_dosql_error(failure)
            try:
                self._loop.call_soon_threadsafe(self._finished, flush, outcome, records, error)
            except RuntimeError:  # the loop is gone: so are those who waited
                return

    def _finished(
        self, flush: Flush, outcome: _Outcome, records: list[Record], error: DosqlError | None
    ) -> None:
        self._current = None
        if self._on_appended is not None and error is None and records:
            self._on_appended(records)
        for source, own in outcome.items():
            source.flushed(own or error)
        flush.resolve(error)
        if self._dirty or self._records:
            self._start()
        if self._on_flushed is not None:
            self._on_flushed(list(outcome))


def as_dosql_error(failure: Exception) -> DosqlError:
    """What the waiting callers are told."""
    if isinstance(failure, DosqlError):
        return failure
    if not isinstance(failure, LogWriteError) or not failure.settled:
        return OutcomeUnknownError(
            "The commit could not be confirmed; it may or may not have been applied."
        )
    if failure.errno in (errno.ENOSPC, errno.EDQUOT):
        return QuotaError("The disk is full; nothing was written.", code="disk_full")
    return UnavailableError("The commit failed; nothing was written.", code="commit_failed")
