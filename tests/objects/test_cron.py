"""Cron expressions: when they match next, in which time zone, and which are refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosql.errors import InvalidRequestError
from dosql.objects.cron import next_time


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def shown(at_ms: int, zone: str = "UTC") -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/5 * * * *", "2026-01-01 00:05"),
        ("30 9 * * MON-FRI", "2026-01-01 09:30"),
        ("0 0 1 * *", "2026-02-01 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 12 L * *", "2026-01-31 12:00"),
        ("@hourly", "2026-01-01 01:00"),
        ("@DAILY", "2026-01-02 00:00"),
        (" @yearly ", "2027-01-01 00:00"),
    ],
)
def test_the_next_match_is_later_than_now(expression: str, expected: str) -> None:
    assert shown(next_time(expression, "UTC", ms("2026-01-01"))) == expected


def test_a_time_zone_moves_the_match() -> None:
    at = next_time("0 9 * * *", "America/New_York", ms("2026-01-01"))
    assert shown(at) == "2026-01-01 14:00"


def test_a_job_in_the_hour_that_is_left_out_runs_right_after_it() -> None:
    """Vienna, 2026-03-29: 02:00 becomes 03:00."""
    at = next_time("30 2 * * *", "Europe/Vienna", ms("2026-03-28 12:00", "Europe/Vienna"))
    assert shown(at, "Europe/Vienna") == "2026-03-29 03:00"


def test_a_job_in_the_hour_that_comes_twice_runs_once() -> None:
    """Vienna, 2026-10-25: 03:00 becomes 02:00."""
    at, seen = ms("2026-10-24 12:00", "Europe/Vienna"), list[str]()
    for _ in range(3):
        at = next_time("30 2 * * *", "Europe/Vienna", at)
        seen.append(shown(at, "Europe/Vienna"))
    assert seen == ["2026-10-25 02:30", "2026-10-26 02:30", "2026-10-27 02:30"]


@given(
    st.sampled_from(["*/7 * * * *", "15 2 * * *", "0 */3 * * *", "30 1 * * SUN", "@monthly"]),
    st.sampled_from(["UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(ms("2020-01-01"), ms("2030-01-01")),
)
def test_every_match_is_later_than_what_was_asked(expression: str, zone: str, after: int) -> None:
    first = next_time(expression, zone, after)
    second = next_time(expression, zone, first)
    assert after < first < second
    assert first % 1000 == 0


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "* * * * * *", "60 * * * *", "x * * * *", "0 0 31 2 *", "* * */20 * 1L",
     "@reboot", "*/0 * * * *", "1-0 * * * *", "0,0" * 99 + " * * * *", "²L * * * *"],
)  # fmt: skip
def test_a_wrong_expression_is_refused(expression: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        next_time(expression, "UTC", ms("2026-01-01"))
    assert refusal.value.code == "invalid_cron"


@given(st.text("0123456789*/-,L#MONTUE ", max_size=30))
def test_nothing_but_a_refusal_comes_of_any_text(expression: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert next_time(expression, "UTC", 0) > 0


@pytest.mark.parametrize("zone", ["Nowhere/Else", "", "../../etc/passwd", "\0", "a" * 300])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        next_time("* * * * *", zone, 0)
    assert refusal.value.code == "invalid_timezone"


def test_utc_is_utc_however_it_is_written() -> None:
    assert next_time("0 9 * * *", "Etc/UTC", 0) == next_time("0 9 * * *", "UTC", 0)
    assert datetime.fromtimestamp(next_time("0 9 * * *", "UTC", 0) / 1000, tz=UTC).hour == 9
