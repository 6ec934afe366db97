"""Points in time as callers write them."""

from __future__ import annotations

import pytest

from dosql.bookmarks import Bookmark
from dosql.errors import InvalidRequestError
from dosql.points import parse_point


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01z", 1_000),
        ("1970-01-01 00:00:01Z", 1_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1970-01-01T02:00:00 02:00", 0),
        ("1969-12-31T23:59:59.5Z", -500),
        ("2026-01-31T12:00:00.1239Z", 1_769_860_800_123),
    ],
)
def test_a_time_is_milliseconds_rounded_down(text: str, ms: int) -> None:
    assert parse_point(text) == ms


def test_a_bookmark_is_itself() -> None:
    mark = Bookmark(7, 2**63 - 1)
    assert parse_point(str(mark)) == mark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",
        "2026-01-31T12:00Z",
        "2026-02-31T12:00:00Z",
        "2026-01-31T24:00:01Z",
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:00+25:00",
        "9999-12-31T23:59:59-10:00",
        "٢٠٢٦-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z\n",
        "1769860800",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_point(text)
    assert caught.value.code == "invalid_time"


@pytest.mark.parametrize("cut", [1, 5])
def test_what_is_nearly_a_bookmark_is_said_to_be_none(cut: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_point(str(Bookmark(7, 9))[:-cut])
    assert caught.value.code == "invalid_bookmark"
