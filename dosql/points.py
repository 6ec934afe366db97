"""Points in time of one object, as callers write them: a bookmark, or a moment (RFC 3339)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dosql.bookmarks import Bookmark
from dosql.errors import InvalidRequestError

Point = Bookmark | int
"""A bookmark, or milliseconds since the Unix epoch: the newest state that is not younger."""

_NEARLY_BOOKMARK = re.compile(r"[0-9A-Fa-f]{9,}-[0-9A-Fa-f]{9,}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?([Zz]|[+ -]\d\d:\d\d)", re.ASCII
)


def parse_point(text: str) -> Point:
    """The point that the text names. A blank stands for the ``+`` of an offset, because that is
    what becomes of it in a URL.

    Raises:
        InvalidRequestError: ``invalid_time``: neither a bookmark nor a time with an offset;
            ``invalid_bookmark``: nearly a bookmark.
    """
    if (match := _TIME.fullmatch(text)) is not None:
        day, time, fraction, offset = match.groups()
        zone = "+00:00" if offset in "Zz" else offset.replace(" ", "+")
        try:
            moment = datetime.fromisoformat(f"{day}T{time}{zone}").astimezone(UTC)
        except (ValueError, OverflowError):
            raise _invalid() from None
        seconds = (moment - _EPOCH) // timedelta(seconds=1)
        return seconds * 1000 + int(f"{fraction or ''}000"[:3])
    if _NEARLY_BOOKMARK.fullmatch(text):
        return Bookmark.parse(text)
    raise _invalid()


def _invalid() -> InvalidRequestError:
    return InvalidRequestError(
        "A point in time is a bookmark, or RFC 3339 with an offset: 2026-01-31T12:00:00Z.",
        code="invalid_time",
    )
