"""AlarmClock: wakes objects when their alarms are due. One timer, over an index of all objects.

Nothing in memory stands for an object that merely has an alarm: the index is asked what is due,
and when to look again. What was due while the host was down runs at the start.

- Never early: the wall clock decides; a timer only says when to look.
- At most one delivery per object, and so many in all, at a time.
- A delivery that fails is tried again after 2 s, 4 s ... 1,024 s, and the object's alarms stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from dosql.clock import Clock, Timer, Timers, jitter
from dosql.errors import DosqlError
from dosql.host.alarm_index import DueAlarm
from dosql.limits import ALARM_CHECK_S_MAX, ALARM_DELIVERIES_MAX
from dosql.objects.alarm_retries import pause_s

_log = logging.getLogger("dosql.host")

_PAGE = 100
_INDEX_RETRY_S = 1.0
_TIMER_S_MIN = 0.001

_Place = tuple[str, bytes]
"""Namespace and id."""


class Index(Protocol):
    """See `AlarmIndex`."""

    def earliest(self, after_ms: int = -1) -> int | None: ...

    def due(self, now_ms: int, limit: int, after: DueAlarm | None = None) -> list[DueAlarm]: ...


class _Delay(NamedTuple):
    """An object whose delivery failed."""

    failures: int
    until: float
    """Not before, on the monotonic clock."""


class AlarmClock:
    """Belongs to the event loop.

    ``deliver`` runs all alarms of one object that are due, brings the index up to date, and
    returns how many ran. What it raises is logged, and the delivery tried again later.
    """

    def __init__(
        self,
        index: Index,
        deliver: Callable[[DueAlarm], Awaitable[int]],
        clock: Clock,
        timers: Timers,
        *,
        deliveries_max: int = ALARM_DELIVERIES_MAX,
        jitter: Callable[[float, float], float] = jitter,
    ) -> None:
        self._index = index
        self._deliver = deliver
        self._clock = clock
        self._timers = timers
        self._deliveries_max = deliveries_max
        self._jitter = jitter
        self._under_way: dict[_Place, asyncio.Task[None]] = {}
        self._delays: dict[_Place, _Delay] = {}
        self._vain: dict[_Place, int] = {}
        """The time in the index for which nothing was there to run."""
        self._look_is_due = False
        self._timer: Timer | None = None
        self._looks_at: float | None = None
        """When the timer is due, on the monotonic clock."""
        self._running = False

    async def start(self) -> None:
        """Deliver what is overdue, and from now on whatever becomes due."""
        self._running = True
        self._look()

    async def stop(self, *, grace_s: float = 0.0) -> None:
        """Deliver nothing more. What is under way has so long to end; then it is cancelled, and
        its alarms run again after the next start."""
        self._running = False
        self._cancel_timer()
        tasks = list(self._under_way.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def changed(self, at_ms: int | None) -> None:
        """The index has got this time, for whichever object. Cheap: called at every alarm set."""
        if at_ms is not None and self._running:
            self._look_in((at_ms - self._clock.now_ms()) / 1000)

    async def run_due(self) -> int:
        """Deliver now what is due now, and return when all that is under way has ended: the
        number of objects. For tests; what failed before waits for its time here too."""
        before, places = self._running, set[_Place]()
        self._running = True
        try:
            self._look()
            while self._under_way:
                places |= set(self._under_way)
                await asyncio.wait(self._under_way.values(), return_when=asyncio.FIRST_COMPLETED)
                self._look()
        finally:
            self._running = before
            if not before:
                self._cancel_timer()
        return len(places)

    @property
    def deliveries(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    # --- looking ------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        """Look once for all deliveries that end now."""
        if not self._look_is_due:
            self._look_is_due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Start what is due, and set the timer for what is not."""
        self._look_is_due = False
        self._cancel_timer()
        if not self._running:
            return
        try:
            self._start_due()
            self._set_timer()
        except DosqlError:
            _log.warning("the alarms could not be looked up", exc_info=True)
            self._look_in(_INDEX_RETRY_S)

    def _start_due(self) -> None:
        now_ms, now = self._clock.now_ms(), self._clock.monotonic()
        gone = {place for place, delay in self._delays.items() if delay.until <= now}
        gone |= self._vain.keys()
        last: DueAlarm | None = None
        while True:
            page = self._index.due(now_ms, _PAGE, last)
            for due in page:
                place = due.namespace, due.key.id
                gone.discard(place)
                delay = self._delays.get(place)
                if place in self._under_way or (delay is not None and delay.until > now):
                    continue
                if len(self._under_way) >= self._deliveries_max:
                    return  # the end of one of them looks again
                self._begin(place, due)
            if len(page) < _PAGE:
                break
            last = page[-1]
        for place in gone:  # its alarm was deleted, or moved to a later time
            self._delays.pop(place, None)
            self._vain.pop(place, None)

    def _set_timer(self) -> None:
        now_ms, now = self._clock.now_ms(), self._clock.monotonic()
        at_ms = self._index.earliest(now_ms)
        if at_ms is not None:
            self._look_in((at_ms - now_ms) / 1000)
        for delay in self._delays.values():
            if delay.until > now:
                self._look_in(delay.until - now)

    def _look_in(self, seconds: float) -> None:
        """Look in so many seconds at the latest."""
        seconds = min(max(seconds, _TIMER_S_MIN), ALARM_CHECK_S_MAX)
        at = self._clock.monotonic() + seconds
        if self._looks_at is not None and self._looks_at <= at:
            return
        self._cancel_timer()
        self._looks_at = at
        self._timer = self._timers.call_later(seconds, self._look)

    def _cancel_timer(self) -> None:
        self._looks_at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- deliveries ---------------------------------------------------------------------------

    def _begin(self, place: _Place, due: DueAlarm) -> None:
        task = asyncio.get_running_loop().create_task(self._attempt(place, due))
        self._under_way[place] = task

        def ended(_: asyncio.Task[None]) -> None:
            del self._under_way[place]
            self._look_soon()

        task.add_done_callback(ended)

    async def _attempt(self, place: _Place, due: DueAlarm) -> None:
        try:
            runs = await self._deliver(due)
        except asyncio.CancelledError:
            if not self._running:
                raise
            self._failed(place, due, "it was cancelled")
        except Exception as error:
            expected = isinstance(error, DosqlError)
            self._failed(place, due, error, exc_info=None if expected else error)
        else:
            self._delivered(place, due, runs)

    def _delivered(self, place: _Place, due: DueAlarm, runs: int) -> None:
        if runs == 0 and self._vain.get(place) == due.at_ms:
            self._failed(place, due, "the index names a time at which the object has no alarm")
            return
        self._delays.pop(place, None)
        if runs == 0:  # it was deleted or moved; if the index still has it then, something is wrong
            self._vain[place] = due.at_ms
        else:
            self._vain.pop(place, None)

    def _failed(
        self,
        place: _Place,
        due: DueAlarm,
        reason: object,
        exc_info: BaseException | None = None,
    ) -> None:
        before = self._delays.get(place)
        failures = before.failures if before is not None else 0
        pause = pause_s(failures, self._jitter)
        self._delays[place] = _Delay(failures + 1, self._clock.monotonic() + pause)
        _log.warning(
            "the alarms of object %s of %s could not be delivered, next attempt in %.0f s: %s",
            due.name if due.name is not None else due.key.id.hex(),
            due.namespace,
            pause,
            reason,
            exc_info=exc_info,
        )
