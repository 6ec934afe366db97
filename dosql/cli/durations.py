"""Durations as people write them."""

from __future__ import annotations

import re

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SHAPE = re.compile(r"(?:\d+[smhdw])+", re.ASCII)
_PART = re.compile(r"(\d+)([smhdw])", re.ASCII)


def parse_duration(text: str) -> int:
    """``7d``, ``12h``, ``1h30m``: whole seconds.

    Raises:
        ValueError: anything else, a number without a unit included, or a duration of zero.
    """
    if not _SHAPE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 45s, 30m, 12h, 7d, 2w or 1h30m")
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
    if seconds == 0:
        raise ValueError("a duration of zero would be over at once")
    return seconds
