"""Cron: when a cron expression is due next, in a time zone. No state, no clock.

Five fields (minute, hour, day of month, month, day of week) as Debian's cron reads them, and the
usual short forms (``@hourly``...). When the clocks go forward, a job of the hour that is left out
runs once right after it; when they go back, a job with a fixed hour runs once.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from dosql.errors import InvalidRequestError
from dosql.limits import CRON_CHARS_MAX

_SHORT_FORMS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = 5


def next_time(expression: str, timezone: str, after_ms: int) -> int:
    """The first time after ``after_ms`` that matches; both in ms since the Unix epoch.

    Raises:
        InvalidRequestError: ``invalid_cron``: not five fields, a field that is wrong, or no
            match within 50 years. ``invalid_timezone``: no such IANA name.
    """
    if len(expression) > CRON_CHARS_MAX:
        raise _invalid(f"it is longer than {CRON_CHARS_MAX} characters")
    fields = _SHORT_FORMS.get(expression.strip().lower(), expression)
    if len(fields.split()) != _FIELDS:
        raise _invalid("it has five fields: minute, hour, day of month, month, day of week")
    after = datetime.fromtimestamp(after_ms // 1000, tz=_zone(timezone))
    try:
        for found in CronSim(fields, after):
            found_ms = int(found.timestamp()) * 1000
            if found_ms > after_ms:
                return found_ms
    except CronSimError as error:
        raise _invalid(str(error)) from None
    raise _invalid("it matches no time within 50 years")


@lru_cache(maxsize=1_000)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # many times cheaper than ZoneInfo("UTC")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError):  # also ZoneInfoNotFoundError, a KeyError
        pass
    except KeyError:
        pass
    raise InvalidRequestError(
        f"There is no time zone {name!r}; give an IANA name, Europe/Vienna say.",
        code="invalid_timezone",
    )


def _invalid(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"The cron expression is not valid: {reason}.", code="invalid_cron")
