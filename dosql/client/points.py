"""Points in time as callers of the client write them, and as they travel."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

from dosql.bookmarks import Bookmark
from dosql.errors import InvalidRequestError
from dosql.points import parse_point

Point = str | datetime | Bookmark
"""A bookmark, a time as RFC 3339 with an offset, or an aware datetime. A time means the newest
state that is not younger, to the millisecond; one to come means now."""


def point_text(point: Point) -> str:
    """The point as the server reads it.

    Raises:
        InvalidRequestError: ``invalid_time``: a datetime without an offset, or text that is neither
            a time with one nor a bookmark; ``invalid_bookmark``: nearly a bookmark.
    """
    if isinstance(point, datetime):
        if point.utcoffset() is None:
            raise InvalidRequestError(
                "A datetime needs an offset, such as tzinfo=UTC, to be a point in time.",
                code="invalid_time",
            )
        return point.astimezone(UTC).isoformat()
    text = str(point)
    parse_point(text)
    return text


def query_point(point: Point) -> str:
    """The same as the value of a query parameter."""
    return quote(point_text(point), safe="")
