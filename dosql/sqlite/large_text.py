"""Large text: searching, replacing and taking apart values of many kilobytes without keeping the
event loop waiting.

One call of a method of ``str`` keeps Python's lock to its end, and the thread of the event loop
cannot go on meanwhile. Here a value is gone through in pieces, between which the lock is given
away for a moment; where that would take more than linear time, the C library searches, without
the lock. Values that are not large are handled as Python does.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

LARGE = 128 * 1024
"""Characters: what takes about a millisecond."""
PIECE = 16 * 1024
_PATTERN_MAX = 4 * 1024
"""Of longer ones too much of each piece would be looked at twice."""
_PAUSE_S = 0.00005
"""Long enough for a thread that waits to get the lock; a pause of 0 would take it back at once."""
_BETWEEN_S = 0.0005
"""So long the lock is kept from one pause to the next."""
_last = threading.local()


def pause() -> None:
    """Let the event loop go on, if it waits and did not just have its turn."""
    if time.perf_counter() - getattr(_last, "paused_at", 0.0) >= _BETWEEN_S:
        time.sleep(_PAUSE_S)
        _last.paused_at = time.perf_counter()


def characters_of(text: str) -> set[str]:
    """Each that is in the text."""
    if len(text) <= LARGE:
        return set(text)
    found = set(text[:PIECE])
    for start in range(PIECE, len(text), PIECE):
        pause()
        found.update(text[start : start + PIECE])
    return found


def find(value: str, wanted: str) -> int:
    """``value.find(wanted)``."""
    if len(value) <= LARGE:
        return value.find(wanted)
    if len(wanted) > _PATTERN_MAX:
        data = value.encode()
        at = _find_unlocked(data, wanted.encode(), 0)
        return at if at < 0 or len(data) == len(value) else len(data[:at].decode())
    for start in range(0, len(value), PIECE):
        at = value.find(wanted, start, start + PIECE + len(wanted) - 1)
        if at >= 0:
            return at
        pause()
    return -1


def find_bytes(value: bytes, wanted: bytes) -> int:
    """``value.find(wanted)``."""
    if len(value) <= LARGE:
        return value.find(wanted)
    if len(wanted) > _PATTERN_MAX:
        return _find_unlocked(value, wanted, 0)
    for start in range(0, len(value), PIECE):
        at = value.find(wanted, start, start + PIECE + len(wanted) - 1)
        if at >= 0:
            return at
        pause()
    return -1


def replace_all(text: str, pattern: str, by: str, bytes_max: int) -> str | None:
    """``text.replace(pattern, by)``; None if the result had more bytes of UTF-8. ``pattern`` is
    not empty."""
    if len(pattern) > _PATTERN_MAX:
        replaced = _replace_unlocked(text.encode(), pattern.encode(), by.encode(), bytes_max)
        return None if replaced is None else replaced.decode()
    parts: list[str] = []
    size = start = 0
    overlap = len(pattern) - 1
    while start < len(text):
        *before, rest = text[start : start + PIECE + overlap].split(pattern)
        is_last = start + PIECE + overlap >= len(text)
        # What may be the beginning of a pattern belongs to the next piece.
        kept = len(rest) if is_last else max(0, len(rest) - overlap)
        if size + len(before) * len(by) > bytes_max:
            return None
        part = by.join([*before, rest[:kept]])
        start += sum(map(len, before)) + len(before) * len(pattern) + kept
        size += len(part) if part.isascii() else len(part.encode())
        if size > bytes_max:
            return None
        parts.append(part)
        pause()
    return "".join(parts)


def _replace_unlocked(data: bytes, pattern: bytes, by: bytes, bytes_max: int) -> bytes | None:
    parts: list[bytes] = []
    start = 0
    while (at := _find_unlocked(data, pattern, start)) >= 0:
        parts.append(data[start:at])
        start = at + len(pattern)
    parts.append(data[start:])
    if sum(map(len, parts)) + (len(parts) - 1) * len(by) > bytes_max:
        return None
    return by.join(parts)


def _memmem() -> Callable[..., Any] | None:
    """The C library's; it takes linear time for long patterns, and ctypes gives the lock away."""
    try:
        found = ctypes.CDLL(None).memmem
    except (AttributeError, OSError, TypeError):
        return None
    size = ctypes.c_size_t
    found.argtypes = (ctypes.c_void_p, size, ctypes.c_char_p, size)
    found.restype = ctypes.c_void_p
    return found


_search = _memmem()


def _find_unlocked(data: bytes, wanted: bytes, start: int) -> int:
    if _search is None:
        return data.find(wanted, start)
    base = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert base is not None
    at = _search(base + start, len(data) - start, wanted, len(wanted))
    return -1 if at is None else at - base
