"""TimeTravel: past states of the objects of a host, found, read, and written to files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from dosql.bookmarks import Bookmark
from dosql.clock import Clock
from dosql.errors import NotFoundError, OutcomeUnknownError, UnavailableError
from dosql.host.awake import AwakeObjects
from dosql.host.cold_tier import ColdTier
from dosql.host.state_cache import StateCache
from dosql.limits import REPLICA_WAIT_S
from dosql.log.disk import disk_error
from dosql.log.records import ObjectKey
from dosql.points import Point
from dosql.replica.history import State, check_database, state_at, state_of, write_state
from dosql.replica.reading import OnProgress, unwatched
from dosql.sqlite.database import Database, DatabaseLimits

T = TypeVar("T")
_FORMAT_VERSIONS_AT = 18
"""Offset of the two header bytes that say 2 for WAL and 1 for a rollback journal."""


class TimeTravel:
    """Belongs to the event loop. What it raises beside the errors of its methods:

    UnavailableError: the bucket cannot be asked, or has not got the newest commits yet.
    CorruptError: what the bucket holds is damaged.
    """

    def __init__(
        self,
        cold: ColdTier,
        awake: AwakeObjects,
        *,
        scratch: Path,
        states: Path,
        clock: Clock,
        limits: DatabaseLimits,
        workers: Executor,
        statement_s: float,
    ) -> None:
        self._cold = cold
        self._awake = awake
        self._scratch = scratch
        self._clock = clock
        self._limits = limits
        self._workers = workers
        self._statement_s = statement_s
        self._copies = 0
        self.states = StateCache(states)

    # --- finding ------------------------------------------------------------------------------

    async def find(self, key: ObjectKey, point: Point) -> State:
        """The state at this point: the newest that is kept and not younger. A time to come is
        now.

        Raises:
            NotFoundError: ``restore_point_not_found``: it is not kept any more, has yet to come,
                or is of another life of the object.
        """
        if isinstance(point, Bookmark):
            self._check(key, point)
            await self.shipped(key, point.txid)
        else:
            await self.shipped(key)
        replica = self._cold.shipper.replica(key)
        if isinstance(point, Bookmark):
            return await self.on_thread(lambda: state_of(replica, point.txid))
        return await self.on_thread(lambda: state_at(replica, point))

    async def bookmark_at(self, key: ObjectKey, point: Point) -> Bookmark:
        """See `dosql.objects.ground.Past`."""
        return Bookmark((await self.find(key, point)).txid, key.incarnation)

    def _check(self, key: ObjectKey, bookmark: Bookmark) -> None:
        if bookmark.incarnation != key.incarnation:
            raise NotFoundError(
                "The bookmark is of another database.", code="restore_point_not_found"
            )

    async def shipped(self, key: ObjectKey, txid: int | None = None) -> None:
        """Return when the bucket has the object's commits up to ``txid``; None: all that the
        commit log has now."""
        shipment = self._cold.shipper.find(key)
        if shipment is None or not shipment.is_behind:
            return
        wanted = shipment.logged_txid if txid is None else min(txid, shipment.logged_txid)
        try:
            await shipment.reached(wanted, REPLICA_WAIT_S)
        except OutcomeUnknownError:
            raise UnavailableError(
                "The bucket does not have the newest commits yet.",
                code="bucket_unavailable",
                retry_after_s=1,
            ) from None

    # --- reading ------------------------------------------------------------------------------

    async def read(
        self, key: ObjectKey, point: Point, work: Callable[[Database], T]
    ) -> tuple[T, Bookmark]:
        """Run ``work``, which reads, on the state at this point; with the bookmark of the state.

        Raises:
            NotFoundError: as `find`.
            ForbiddenError: ``read_only``: it writes.
            DosqlError: whatever ``work`` raised.
        """
        txid = await self._txid(key, point)
        async with self.states.lease(key, txid, lambda path: self._make(key, txid, path)) as path:
            future = asyncio.get_running_loop().run_in_executor(
                self._workers, self._work, path, work
            )
            try:
                value = await asyncio.shield(future)
            except asyncio.CancelledError:
                await asyncio.wait([future])  # it reads the file
                raise
        return value, Bookmark(txid, key.incarnation)

    async def _txid(self, key: ObjectKey, point: Point) -> int:
        if isinstance(point, Bookmark):
            self._check(key, point)
            if self.states.holds(key, point.txid):
                return point.txid
        return (await self.find(key, point)).txid

    def _work(self, path: Path, work: Callable[[Database], T]) -> T:
        db = Database(str(path), clock=self._clock, limits=self._limits, read_only=True)
        try:
            db.set_deadline(self._statement_s, on_thread=True)
            return work(db)
        finally:
            db.set_deadline(None)
            db.close()

    async def _make(self, key: ObjectKey, txid: int, path: Path) -> None:
        replica = self._cold.shipper.replica(key)

        def make() -> None:
            if write_state(replica, txid, path) is not None:
                with path.open("r+b") as file:
                    file.seek(_FORMAT_VERSIONS_AT)
                    file.write(b"\x01\x01")

        await self.on_thread(make)

    # --- writing ------------------------------------------------------------------------------

    @asynccontextmanager
    async def copy(
        self, key: ObjectKey, txid: int, on_progress: OnProgress = unwatched
    ) -> AsyncIterator[Path]:
        """The state, checked, as a database file of the caller's own, removed at the end. Its
        size is 0 for an empty database. ``on_progress`` is called on a thread."""
        self._copies += 1
        path = self._scratch / f"past-{self._copies}-{key.filename}"
        replica = self._cold.shipper.replica(key)

        def write() -> None:
            if write_state(replica, txid, path, on_progress) is not None:
                check_database(path)

        try:
            await self.on_thread(write)
            yield path
        finally:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)

    @asynccontextmanager
    async def copies(self, *states: tuple[ObjectKey, int]) -> AsyncIterator[tuple[Path, ...]]:
        """`copy` of several at once."""
        async with AsyncExitStack() as stack:
            yield tuple([await stack.enter_async_context(self.copy(*each)) for each in states])

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Run work that talks to the bucket and writes files; never abandoned half-way."""
        future = asyncio.ensure_future(self._cold.shipper.on_thread(work))
        try:
            return await asyncio.shield(future)
        except OSError as error:
            raise disk_error(error) from error
        except asyncio.CancelledError:
            await asyncio.wait([future])  # it works on a file that is about to be removed
            raise
