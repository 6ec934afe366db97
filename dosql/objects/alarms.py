"""Alarms: ``ctx.storage.alarms``, calls of the object's ``alarm`` method at times of its choice.

Every alarm has a name; the one of ``ctx.storage.set_alarm`` has the empty name. An alarm runs at
least once, never early, and wakes the object if it sleeps. It is set, moved and removed in the
same transaction as whatever else the object writes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dosql.clock import Clock
from dosql.errors import InvalidRequestError
from dosql.objects.alarm_store import AlarmStore
from dosql.objects.alarm_table import AlarmRow

AlarmTime = int | float | datetime
"""Milliseconds since the Unix epoch, or a datetime with a time zone."""

_TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999, as datetime's."""


@dataclass(frozen=True, slots=True)
class AlarmInfo:
    """What the ``alarm`` method is told."""

    name: str
    """Empty for the alarm of ``set_alarm``."""
    scheduled_time: int
    """When it was to run, in ms since the Unix epoch; the same at every retry."""
    retry_count: int
    """Failed runs before this one that count; the seventh failure is the last."""
    is_retry: bool
    """A run before this one failed, whether that counts or not."""
    data: Any
    """What it was scheduled with."""
    cron: str | None
    """The expression, if it repeats."""

    @classmethod
    def of(cls, row: AlarmRow) -> AlarmInfo:
        """Raises CorruptError if the stored data are damaged."""
        is_retry = row.retry_count > 0 or row.faults > 0
        return cls(row.name, row.scheduled_ms, row.retry_count, is_retry, row.data, row.cron)


@dataclass(frozen=True, slots=True)
class ScheduledAlarm:
    """An alarm that is to come."""

    name: str
    time: int
    """What it is set for, in ms since the Unix epoch."""
    runs_at: int
    """When it runs: its time, or that of a retry."""
    retry_count: int
    data: Any
    cron: str | None
    timezone: str | None


class Alarms:
    """All of it is synchronous: nothing here waits, or lets another event in."""

    def __init__(self, store: AlarmStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def schedule(
        self,
        name: str,
        at: AlarmTime | None = None,
        *,
        after: float | timedelta | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        data: Any = None,
    ) -> None:
        """Set the alarm of this name, in place of the one there is. Exactly one of:

        - ``at``: a time; one that has passed means now;
        - ``after``: seconds, or a timedelta, from now;
        - ``cron``: every time the expression matches in the time zone. What is missed, because
          the server was down or a run took long, is made up for by one run.

        ``data`` is any storable value, up to 64 KiB; the handler gets it.

        Raises:
            InvalidRequestError: ``invalid_alarm_time``, ``invalid_alarm_name``, ``invalid_cron``,
                ``invalid_timezone``, ``value_not_storable``; ``no_alarm_handler``.
            LimitError: ``alarm_data_too_large``, ``too_many_alarms``.
        """
        if (at is not None) + (after is not None) + (cron is not None) != 1:
            raise _invalid("Give exactly one of at, after and cron.")
        if cron is not None:
            self._store.set_cron(name, cron, timezone, data=data)
        else:
            at_ms = self._after(after) if after is not None else time_ms(at)
            self._store.set(name, at_ms, data=data)

    def get(self, name: str) -> ScheduledAlarm | None:
        """The alarm; None if there is none, or if it is running and was not set again."""
        row = self._store.get(name)
        return None if row is None else _scheduled(row)

    def delete(self, name: str) -> bool:
        """Remove what `get` would give; False if that is nothing. A run that has begun goes on,
        and is retried if it fails."""
        return self._store.delete(name)

    def list(self) -> list[ScheduledAlarm]:
        """Every alarm, in name order; that of ``set_alarm`` first, its name is empty."""
        return [_scheduled(row) for row in self._store.all()]

    def _after(self, after: float | timedelta) -> int:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise _invalid("after is a number of seconds, or a timedelta.")
        if not 0 <= seconds < math.inf:
            raise _invalid("after is not less than 0.")
        return time_ms(self._clock.now_ms() + seconds * 1000)


def time_ms(time: Any) -> int:
    """An `AlarmTime` as whole milliseconds, rounded up: an alarm is never early.

    Raises:
        InvalidRequestError: ``invalid_alarm_time``: 0 or less, beyond the year 9999, a datetime
            without a time zone, or not a time at all.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise _invalid("A datetime needs a time zone here: datetime.now(UTC), for example.")
        time = time.timestamp() * 1000
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise _invalid("A time is milliseconds since the Unix epoch, or a datetime.")
    if not 0 < time <= _TIME_MS_MAX:
        raise _invalid("A time is after 1970 and before the year 10000.")
    return math.ceil(time)


def _scheduled(row: AlarmRow) -> ScheduledAlarm:
    return ScheduledAlarm(
        row.name, row.scheduled_ms, row.at_ms, row.retry_count, row.data, row.cron, row.timezone
    )


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, code="invalid_alarm_time")
