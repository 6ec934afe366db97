"""ObjectStorage: ``ctx.storage``, everything an object keeps, in its own SQLite database.

Storage calls act at once, whether they are awaited or not: an ``await`` on one never lets another
event in. What is written between two real waits is one transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from dosql.bookmarks import Bookmark
from dosql.errors import ConflictError, InvalidRequestError
from dosql.objects.activation import Activation
from dosql.objects.alarm_store import AlarmStore
from dosql.objects.alarms import Alarms, time_ms
from dosql.objects.kv import AsyncKV, SyncKV
from dosql.objects.kv_store import KeyValueStore
from dosql.objects.pending_restore import order_restore
from dosql.objects.settled import Settled
from dosql.objects.sql import Sql
from dosql.points import Point

T = TypeVar("T")
_SINGLE = ""
"""The name of the alarm that `ObjectStorage.set_alarm` sets."""


class _RolledBack(BaseException):
    """Ends a transaction that its own code gave up, without an error for anybody."""


class Transaction(AsyncKV):
    """What `ObjectStorage.transaction` passes on. All of ``ctx.storage`` takes part in the
    transaction; this adds `rollback`, after which it can do nothing else any more: ConflictError
    ``transaction_closed``."""

    def __init__(self, entries: KeyValueStore) -> None:
        super().__init__(entries)
        self.rolled_back = False

    @property
    def _entries(self) -> KeyValueStore:
        if self.rolled_back:
            raise ConflictError("The transaction was rolled back.", code="transaction_closed")
        return super()._entries

    def rollback(self) -> None:
        """Undo everything when the function of the transaction ends; a second time, nothing."""
        self.rolled_back = True


class ObjectStorage(AsyncKV):
    """The faces of one database: ``sql``, ``kv``, ``alarms``, and Cloudflare's methods."""

    def __init__(
        self,
        activation: Activation,
        *,
        entries: KeyValueStore,
        sql: Sql,
        alarms: Alarms,
        alarm_store: AlarmStore,
    ) -> None:
        super().__init__(entries)
        self.kv = SyncKV(entries)
        """`get`, `put`, `delete`, `list` that need no ``await``."""
        self.sql = sql
        self.alarms = alarms
        """Alarms with names, and recurring ones."""
        self._activation = activation
        self._alarms = alarm_store

    # --- transactions -------------------------------------------------------------------------

    async def transaction(self, body: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``body`` so that all it writes is kept when it returns, and undone when it raises or
        calls ``txn.rollback()``. No other event of the object runs meanwhile. May be nested.

        Raises:
            Exception: what ``body`` raised.
            ObjectResetError: it took longer than 30 s, or could not be committed.
        """
        txn = Transaction(self._entries)
        values: list[T] = []

        async def run() -> None:
            values.append(await body(txn))
            if txn.rolled_back:
                raise _RolledBack

        with contextlib.suppress(_RolledBack):
            await self._activation.access.transaction(run)
        return values[0]

    def transaction_sync(self, body: Callable[[], T]) -> T:
        """Run a plain function so that what it writes is undone if it raises. May be nested.

        Raises:
            ConflictError: ``transaction_not_sync``: it returned something to await.
        """
        return self._activation.access.transaction_sync(body)

    async def sync(self) -> None:
        """Return when everything written so far is durable: before a side effect that dosql does
        not see, such as a request to somebody else's server.

        Raises:
            ConflictError: ``transaction_open``: inside a transaction that could not be.
            DosqlError: it is not to be.
        """
        self._activation.access.not_in_transaction("sync()")
        await self._activation.synced()

    def delete_all(
        self, *, allow_concurrency: bool = False, allow_unconfirmed: bool = False
    ) -> Settled[None]:
        """Delete everything at once: tables, keys, alarms. Nothing is left of the database; an
        object that stores nothing ceases to exist when it leaves memory.

        Raises:
            ConflictError: ``transaction_open``: not possible in a transaction.
        """
        self._activation.access.not_in_transaction("delete_all()")
        self._activation.access.wipe(confirmed=not allow_unconfirmed)
        return Settled(None)

    # --- alarms -------------------------------------------------------------------------------

    def _give_up_running_alarms(self) -> None:
        """For `ObjectState.abort`: what runs now is not tried again."""
        self._alarms.retries = False

    def set_alarm(
        self,
        at: int | datetime,
        *,
        allow_concurrency: bool = False,
        allow_unconfirmed: bool = False,
    ) -> Settled[None]:
        """Have ``alarm()`` called at this time: ms since the epoch, or an aware datetime.
        Replaces the one that was set. See `Alarms.schedule` for more than one. The options are
        those of `put`.

        Raises:
            InvalidRequestError: ``invalid_alarm_time``; ``no_alarm_handler``: the class has no
                ``alarm`` method.
        """
        self._alarms.set(_SINGLE, time_ms(at), confirmed=not allow_unconfirmed)
        return Settled(None)

    def get_alarm(self, *, allow_concurrency: bool = False) -> Settled[int | None]:
        """When ``alarm()`` will be called, in ms since the epoch; None: no alarm is set, or it is
        just being handled."""
        row = self._alarms.get(_SINGLE)
        return Settled(None if row is None else row.scheduled_ms)

    def delete_alarm(
        self, *, allow_concurrency: bool = False, allow_unconfirmed: bool = False
    ) -> Settled[None]:
        """Do not call ``alarm()``; one that runs already is not stopped. The options are those of
        `put`."""
        self._alarms.delete(_SINGLE, confirmed=not allow_unconfirmed)
        return Settled(None)

    # --- points in time -----------------------------------------------------------------------

    def get_current_bookmark(self) -> Settled[str]:
        """The name of the state as it is now, the current event's writes included."""
        return Settled(str(self._activation.commits.bookmark))

    async def get_bookmark_for_time(self, at: int | datetime) -> str:
        """The name of the newest state that was committed at this time (ms since the epoch, or an
        aware datetime) or before it. A time to come is now.

        Raises:
            NotFoundError: ``restore_point_not_found``: nothing that old is kept.
            InvalidRequestError: ``no_bucket``: nothing of the past is kept here at all.
            UnavailableError: the bucket cannot be asked.
        """
        return str(await self._bookmark_at(time_ms(at)))

    async def on_next_session_restore_bookmark(self, bookmark: str) -> str:
        """Have the whole database be as it was at this bookmark when the object is woken next:
        tables, keys and alarms. `ctx.abort` makes that happen at once. Until then the object goes
        on as it is. The last order counts, and it is durable when this returns.

        The result is the bookmark that takes the restore back: the state as it is now.

        Raises:
            InvalidRequestError: ``invalid_bookmark``; ``no_bucket``.
            NotFoundError: ``restore_point_not_found``: it is not kept any more, or another
                object's.
            ConflictError: ``transaction_open``: not possible in a transaction.
        """
        what = "on_next_session_restore_bookmark()"
        self._activation.access.not_in_transaction(what)
        point = await self._bookmark_at(Bookmark.parse(bookmark))
        self._activation.access.not_in_transaction(what)
        order_restore(self._activation.access.write(), point)
        undo = self._activation.commits.bookmark
        await self._activation.synced()
        return str(undo)

    async def _bookmark_at(self, point: Point) -> Bookmark:
        ground = self._activation.ground
        if ground.past is None:
            raise InvalidRequestError(
                "Nothing of the past is kept here: there is no bucket.", code="no_bucket"
            )
        await self._activation.synced()
        return await ground.past.bookmark_at(ground.key, point)
