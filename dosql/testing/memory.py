"""An object's ground in memory: real SQLite without a file, durable when a `MemoryLog` says so.

Everything happens on the event loop, without threads, in a fixed order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import apsw

from dosql.bookmarks import Bookmark
from dosql.clock import Clock, SystemClock
from dosql.errors import DosqlError, UnavailableError
from dosql.limits import STATEMENT_MS_MAX
from dosql.log.records import ObjectKey
from dosql.objects.ground import Past
from dosql.objects.instance import InstanceClosed
from dosql.objects.turns import Turns
from dosql.sqlite.connection import DatabaseLimits
from dosql.sqlite.database import Database
from dosql.sqlite.opening import MEMORY
from dosql.testing.memory_log import Image, MemoryLog

T = TypeVar("T")


_EMPTY = Image(0, b"")


class MemoryDatabase(Database):
    """A `Database` without a file."""

    def __init__(self, content: bytes, *, clock: Clock) -> None:
        super().__init__(MEMORY, clock=clock, server_tables=frozenset())
        if content:
            self._load(content)
        self.wal_frames = 0  # counts commits: what a file's WAL hook would count in frames
        self._content = content
        self._content_of = 0

    def _set_up(self, limits: DatabaseLimits) -> None:
        super()._set_up(limits)
        self._connection.set_commit_hook(self._count_commit)

    def begin(self) -> None:
        """See `Database.begin`."""
        self._keep_content()
        super().begin()

    @property
    def content(self) -> bytes:
        """All bytes as of the newest commit, without what an open transaction has done."""
        self._keep_content()
        return self._content

    def _keep_content(self) -> None:
        if self._content_of != self.wal_frames and not self._connection.in_transaction:
            self._content = self._connection.serialize("main")
            self._content_of = self.wal_frames

    def _load(self, content: bytes) -> None:
        source = apsw.Connection(MEMORY)
        try:
            source.deserialize("main", content)
            with self._connection.backup("main", source, "main") as backup:
                backup.step()
        finally:
            source.close()

    def _count_commit(self) -> bool:
        self.wal_frames += 1
        return False  # let the commit be


class MemoryGround:
    """`dosql.objects.ground.Ground` over a `MemoryDatabase`, woken from the log's image."""

    def __init__(
        self,
        key: ObjectKey,
        *,
        log: MemoryLog | None = None,
        clock: Clock | None = None,
        on_broken: Callable[[MemoryGround], None] = lambda _: None,
    ) -> None:
        self._log = log or MemoryLog()
        self._clock = clock or SystemClock()
        image = self._log.images.get(key, _EMPTY)
        self.key = key
        self.db: Database = MemoryDatabase(image.content, clock=self._clock)
        self.turns = Turns()
        self.closed = False
        self.broken: DosqlError | None = None
        self.used_at = self._clock.monotonic()
        self.past: Past | None = None
        self.pins = 0
        self.txid = image.txid
        """Newest batch handed to the log."""
        self.durable_txid = image.txid
        self.on_durable: Callable[[], None] = lambda: None
        self._content = image.content
        """Of batch `txid`."""
        self._next: bytes | None = None
        """Committed since."""
        self._commits_seen = 0
        self._on_broken = on_broken
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def log(self) -> MemoryLog:
        """To hold and flush it."""
        return self._log

    @property
    def bookmark(self) -> Bookmark:
        """See `Ground`."""
        self._look()
        return Bookmark(self.txid + (self._next is not None), self.key.incarnation)

    @property
    def statement_s(self) -> float:
        """See `Ground`."""
        return STATEMENT_MS_MAX / 1000

    def check_open(self) -> None:
        """See `Ground`."""
        if self.closed:
            raise InstanceClosed
        if self.broken is not None:
            raise self._refusal()

    def after_work(self) -> None:
        """See `Ground`."""
        if self.db.broken is not None:
            self.break_(self.db.broken)
            return
        self._look()
        if self._next is not None:
            self._log.committed(self)

    def run_inline(self, work: Callable[[Database], T]) -> T:
        """Run ``work`` within the turn, as `Instance.run_inline`."""
        try:
            return work(self.db)
        finally:
            self.after_work()

    async def durable(self, txid: int) -> None:
        """See `Ground`."""
        if self.durable_txid < txid and self.broken is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((txid, waiter))
            await waiter
        if self.durable_txid < txid:
            raise self._refusal()

    async def run_on_thread(self, work: Callable[[Database], T], seconds: float) -> T:
        """See `Ground`; here it runs on the loop, after whatever was ready to run before it."""
        await asyncio.sleep(0)
        self.db.set_deadline(seconds, on_thread=True)
        return work(self.db)

    def break_(self, error: DosqlError) -> None:
        """See `Ground`."""
        if self.broken is None:
            self.broken = error
            self._on_broken(self)
            self._wake_waiters()
            self.on_durable()

    def close(self) -> None:
        """Put it to sleep, or give up a broken one: its memory is gone."""
        self.closed = True
        self.db.close()

    # --- for MemoryLog ------------------------------------------------------------------------

    def take(self) -> Image | None:
        """See `Source`."""
        if self._next is None or self.broken is not None:
            return None
        self.txid += 1
        self._content, self._next = self._next, None
        return Image(self.txid, self._content)

    def flushed(self, txid: int) -> None:
        """See `Source`."""
        if self.broken is None:
            self.durable_txid = txid
            self._wake_waiters()
            self.on_durable()

    def _look(self) -> None:
        """Notice new commits. One that changed nothing is none: a file's WAL would not grow."""
        db = self.db
        assert isinstance(db, MemoryDatabase)
        if db.wal_frames != self._commits_seen and not self.closed:
            self._commits_seen = db.wal_frames
            content = db.content
            if content != (self._content if self._next is None else self._next):
                self._next = content

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for txid, waiter in waiters:
            if txid > self.durable_txid and self.broken is None:
                self._waiters.append((txid, waiter))
            elif not waiter.done():
                waiter.set_result(None)

    def _refusal(self) -> DosqlError:
        if self.broken is None:
            return UnavailableError("The object is asleep.", code="object_recovering")
        return type(self.broken)(self.broken.message, code=self.broken.code)
