"""Alarm runs: how the due alarms of one object are run, and what is kept of it.

Every run is one event of the object. Its end is written in the last step of its handler, so the
alarm is done if and only if what the handler wrote is kept. If the object is reset under way, the
failure is written by its next life.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from dosql.clock import Timers
from dosql.errors import DosqlError
from dosql.limits import ALARM_HANDLER_S_MAX
from dosql.objects import alarm_table
from dosql.objects.alarm_retries import counts
from dosql.objects.alarm_store import AlarmFailure, AlarmStore
from dosql.objects.alarm_table import AlarmRow
from dosql.objects.alarms import AlarmInfo
from dosql.sqlite.database import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AlarmOutcome:
    """One run, for the log and for tests."""

    name: str
    scheduled_time: int
    error: BaseException | None = None
    failure: AlarmFailure | None = None
    """Both None: it succeeded."""


class EarliestAlarm:
    """Tells the host's index when the object wants to be woken, never later than the truth.

    ``note`` is called with the time. An earlier one is noted before it is committed, in the same
    flush; a later one, or None, only once nothing can undo it, because a crash between the two
    would leave an alarm that nobody looks for. Until then the index is early, which costs one
    look at the object.
    """

    def __init__(
        self, store: AlarmStore, noted_ms: int | None, note: Callable[[int | None], None]
    ) -> None:
        self._store = store
        self._note = note
        self.noted_ms = noted_ms
        """What the index has."""

    def before_commit(self, db: Database) -> None:
        """In every step that wrote, before its commit. Whatever ``note`` raises must undo it."""
        if self._store.touched:
            at_ms = alarm_table.earliest(db)
            if at_ms is not None and (self.noted_ms is None or at_ms < self.noted_ms):
                self._tell(at_ms)
            self._store.touched = False

    def settle(self, db: Database) -> None:
        """Within a turn, with nothing open and everything durable: make the index exact."""
        at_ms = alarm_table.earliest(db)
        if at_ms != self.noted_ms:
            self._tell(at_ms)

    def _tell(self, at_ms: int | None) -> None:
        self._note(at_ms)
        self.noted_ms = at_ms


class AlarmRunner:
    """One life of the object, as far as its alarms are concerned.

    ``handler`` is its ``alarm`` method, sync or async.
    """

    def __init__(
        self, store: AlarmStore, handler: Callable[[AlarmInfo], Any], timers: Timers
    ) -> None:
        self.store = store
        self._handler = handler
        self._timers = timers

    async def call(self, info: AlarmInfo) -> None:
        """Run the handler; TimeoutError if it takes longer than ALARM_HANDLER_S_MAX."""
        result = self._handler(info)
        if not inspect.isawaitable(result):
            return
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(None)  # by our own timers, so that a test can move time
        timer = self._timers.call_later(ALARM_HANDLER_S_MAX, lambda: limit.reschedule(loop.time()))
        try:
            async with limit:
                await result
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"The alarm method took longer than {ALARM_HANDLER_S_MAX:.0f} s."
            ) from error
        finally:
            timer.cancel()


class RunEvent(Protocol):
    """Wakes the object if it sleeps, and runs ``body`` as one event of it; returns when all it
    saw and wrote is durable."""

    async def __call__(self, body: Callable[[AlarmRunner], Coroutine[Any, Any, T]]) -> T: ...


class _Run:
    """One run of one alarm; it may outlive the life of the object that began it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._row: AlarmRow | None = None
        self._store: AlarmStore | None = None
        """That of the life which began it."""

    @property
    def begun(self) -> bool:
        return self._row is not None

    async def first(self, runner: AlarmRunner) -> AlarmOutcome | None:
        """The event that runs the handler."""
        store = self._store = runner.store
        row = self._row = store.begin(self._name)
        if row is None:
            return None
        try:
            await runner.call(AlarmInfo.of(row))
            store.succeeded(row)
        except Exception as error:
            return _failed(store, row, error)
        finally:
            store.ended(row)
        return AlarmOutcome(row.name, row.scheduled_ms)

    async def after_reset(self, error: BaseException, runner: AlarmRunner) -> AlarmOutcome:
        """The event of the next life, which writes down how the first one ended."""
        assert self._row is not None
        assert self._store is not None
        retries = self._store.retries
        return _failed(runner.store, self._row, error, retries=retries)


def _failed(
    store: AlarmStore, row: AlarmRow, error: BaseException, *, retries: bool = True
) -> AlarmOutcome:
    failure = store.failed(row, error, retries=retries)
    return AlarmOutcome(row.name, row.scheduled_ms, error, failure)


async def run_due(
    run_event: RunEvent, report: Callable[[AlarmOutcome], None] = lambda _: None
) -> int:
    """Run the alarms of one object that are due now, one after the other; how many ran.

    What becomes due meanwhile is left to the next call, so that no object keeps the others from
    theirs. ``report`` hears of each run. What a handler raises is recorded with its alarm, and is
    not raised here.

    Raises:
        DosqlError: the object could not be reached, or what came of a run could not be stored;
            the alarm is still there and must be tried again.
    """

    async def due(runner: AlarmRunner) -> list[str]:
        return runner.store.due()

    runs = 0
    for name in await run_event(due):
        run = _Run(name)
        try:
            outcome = await run_event(run.first)
        except DosqlError as error:  # the object was reset, or what it did could not be stored
            if not run.begun or not counts(error):
                raise
            outcome = await run_event(partial(run.after_reset, error))
        if outcome is not None:
            runs += 1
            report(outcome)
    return runs
