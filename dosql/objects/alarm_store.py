"""AlarmStore: setting, looking up and ending the alarms of one object, as one transaction with
whatever else the object writes.

While an alarm's handler runs, its row stays stored, so that a crash runs it again; to the object's
code it is gone. A time set meanwhile takes the place of the row, and of its retries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dosql.clock import Clock
from dosql.clock import jitter as system_jitter
from dosql.errors import InvalidRequestError, LimitError
from dosql.limits import ALARM_DATA_BYTES_MAX, ALARM_NAME_BYTES_MAX, ALARMS_MAX
from dosql.objects import alarm_table
from dosql.objects.access import Access
from dosql.objects.alarm_retries import counts, is_last, pause_s
from dosql.objects.alarm_table import AlarmRow
from dosql.objects.cron import next_time
from dosql.objects.values import encode_value


@dataclass(frozen=True, slots=True)
class AlarmFailure:
    """What came of a failed run."""

    counted: bool
    retry_at_ms: int | None
    """None: this run is not repeated. It was given up, or set anew by its handler."""
    given_up: bool
    """It failed too often; a cron alarm goes on with its next time, any other is gone."""


class AlarmStore:
    """Belongs to one life of the object in memory.

    ``has_handler`` says whether the object's class has an ``alarm`` method.
    """

    def __init__(
        self,
        access: Access,
        clock: Clock,
        *,
        has_handler: Callable[[], bool],
        jitter: Callable[[float, float], float] = system_jitter,
    ) -> None:
        self._access = access
        self._clock = clock
        self._has_handler = has_handler
        self._jitter = jitter
        self._running: dict[str, AlarmRow] = {}
        self.touched = False
        """Something was written since whoever looks at this last cleared it."""
        self.retries = True
        """Whether a run that this life's reset interrupts is tried again."""

    # --- for the object's code ----------------------------------------------------------------

    def set(self, name: str, at_ms: int, *, data: object = None, confirmed: bool = True) -> None:
        """Set the alarm, in place of the one of its name. A time that has passed means now.

        Raises:
            InvalidRequestError: ``no_alarm_handler``, ``invalid_alarm_name``,
                ``value_not_storable``.
            LimitError: ``too_many_alarms``, ``alarm_data_too_large``.
        """
        self._put(name, max(at_ms, self._clock.now_ms()), None, None, data, confirmed)

    def set_cron(self, name: str, cron: str, timezone: str, *, data: object = None) -> None:
        """Set an alarm that repeats. Raises as `set`, and as `cron.next_time`."""
        first = next_time(cron, timezone, self._clock.now_ms())
        self._put(name, first, cron, timezone, data, True)

    def get(self, name: str) -> AlarmRow | None:
        """The alarm, unless it is running and was not set again."""
        row = alarm_table.find(self._access.read(), _checked(name))
        return None if row is None else self._seen(row)

    def all(self) -> list[AlarmRow]:
        """Every alarm that `get` would give, in name order."""
        rows = alarm_table.all_rows(self._access.read())
        return [seen for row in rows if (seen := self._seen(row)) is not None]

    def delete(self, name: str, *, confirmed: bool = True) -> bool:
        """Remove what `get` would give; False if that is nothing. What runs, runs on, and is
        tried again if it fails."""
        row = alarm_table.find(self._access.read(), _checked(name))
        if row is None or self._seen(row) is None:
            return False
        db = self._access.write(confirmed=confirmed)
        running = self._running.get(name)
        if running is None:
            alarm_table.delete(db, name)
        else:
            alarm_table.put(db, replace(running, cron=None, timezone=None))
        self.touched = True
        return True

    def _put(
        self,
        name: str,
        at_ms: int,
        cron: str | None,
        timezone: str | None,
        data: object,
        confirmed: bool,
    ) -> None:
        if not self._has_handler():
            raise InvalidRequestError(
                "The class has no alarm method: add `async def alarm(self, info)`.",
                code="no_alarm_handler",
            )
        encoded = _encoded(data)
        old = alarm_table.find(self._access.read(), _checked(name))
        running = self._running.get(name)
        db = self._access.write(confirmed=confirmed)
        if old is None and alarm_table.count(db) >= ALARMS_MAX:
            raise LimitError(f"The object has {ALARMS_MAX} alarms already.", code="too_many_alarms")
        revision = 1 + max(old.revision if old else 0, running.revision if running else 0)
        alarm_table.put(db, AlarmRow(name, at_ms, at_ms, cron, timezone, 0, 0, revision, encoded))
        self.touched = True

    def _seen(self, row: AlarmRow) -> AlarmRow | None:
        """The row as the object's code sees it."""
        running = self._running.get(row.name)
        if running is None or running.revision != row.revision:
            return row
        return None if row.cron is None else self._next(row)

    def _next(self, row: AlarmRow) -> AlarmRow:
        """The next time of a cron alarm; those that were missed meanwhile are left out."""
        assert row.cron is not None and row.timezone is not None
        at_ms = next_time(row.cron, row.timezone, max(row.scheduled_ms, self._clock.now_ms()))
        return replace(
            row,
            at_ms=at_ms,
            scheduled_ms=at_ms,
            retry_count=0,
            faults=0,
            revision=row.revision + 1,
        )

    # --- for whoever runs them ----------------------------------------------------------------

    def due(self) -> list[str]:
        """The names of the alarms whose time has come, the longest overdue first."""
        return alarm_table.due(self._access.read(), self._clock.now_ms())

    def begin(self, name: str) -> AlarmRow | None:
        """The alarm runs now, until `ended`; None if it is not due, or runs already."""
        row = alarm_table.find(self._access.read(), name)
        if row is None or row.at_ms > self._clock.now_ms() or name in self._running:
            return None
        self._running[name] = row
        return row

    def ended(self, row: AlarmRow) -> None:
        """It runs no longer, whatever came of it."""
        self._running.pop(row.name, None)

    def succeeded(self, row: AlarmRow) -> None:
        """In the handler's last transaction: the alarm has done its work."""
        stored = self._still(row)
        if stored is not None:
            self._finish(stored)

    def failed(self, row: AlarmRow, error: BaseException, *, retries: bool = True) -> AlarmFailure:
        """The handler failed. May be called in a later life of the object than `begin`.
        ``retries=False``: the alarm is given up."""
        counted = counts(error)
        stored = self._still(row)
        if stored is None:
            return AlarmFailure(counted, None, False)
        if not retries or (counted and is_last(stored.retry_count)):
            self._finish(stored)
            return AlarmFailure(counted, None, True)
        earlier = stored.retry_count if counted else stored.faults
        pause_ms = math.ceil(pause_s(earlier, self._jitter) * 1000)
        retry = replace(
            stored,
            at_ms=self._clock.now_ms() + pause_ms,
            retry_count=stored.retry_count + counted,
            faults=0 if counted else stored.faults + 1,
        )
        alarm_table.put(self._access.write(), retry)
        self.touched = True
        return AlarmFailure(counted, retry.at_ms, False)

    def _still(self, row: AlarmRow) -> AlarmRow | None:
        """The stored row of this run; None if it was set anew or deleted."""
        stored = alarm_table.find(self._access.read(), row.name)
        return stored if stored is not None and stored.revision == row.revision else None

    def _finish(self, row: AlarmRow) -> None:
        db = self._access.write()
        self.touched = True
        if row.cron is not None:
            try:
                alarm_table.put(db, self._next(row))
                return
            except InvalidRequestError:  # it has no more times, or its zone is gone
                pass
        alarm_table.delete(db, row.name)


def _checked(name: Any) -> str:
    if not isinstance(name, str) or "\0" in name:
        raise InvalidRequestError("An alarm's name is text.", code="invalid_alarm_name")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(
            "The alarm's name holds a lone surrogate.", code="invalid_alarm_name"
        ) from None
    if size > ALARM_NAME_BYTES_MAX:
        raise InvalidRequestError(
            f"The alarm's name is longer than {ALARM_NAME_BYTES_MAX} bytes.",
            code="invalid_alarm_name",
        )
    return name


def _encoded(data: object) -> bytes | None:
    if data is None:
        return None
    encoded = encode_value(data, records=True)
    if len(encoded) > ALARM_DATA_BYTES_MAX:
        raise LimitError(
            f"The alarm's data takes {len(encoded)} bytes; {ALARM_DATA_BYTES_MAX} are allowed.",
            code="alarm_data_too_large",
        )
    return encoded
