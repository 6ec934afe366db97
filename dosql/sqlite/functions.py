"""Functions of SQLite's that take quadratic time, with the same results in linear time.

SQLite's own ``instr`` and ``replace`` compare at every place, its ``trim`` each character with each
of the set: seconds to minutes with two arguments of 1 MB, in which no deadline and no interrupt is
looked at. Text that is not UTF-8 is an error here, ``invalid_text``.

They hold Python's lock while they run, on whatever thread, and so the event loop waits for them:
long values are therefore gone through in pieces, with a pause between two (see `large_text`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import apsw

from dosql.limits import VALUE_BYTES_MAX
from dosql.sqlite.large_text import (
    LARGE,
    PIECE,
    characters_of,
    find,
    find_bytes,
    pause,
    replace_all,
)
from dosql.wire.values import SqlValue

_SMALL_SET = 16
"""Characters that `str.strip` compares one by one, fast enough."""
_UNHEX_CHARACTERS_MAX = 512 * 1024
_HEX = b"0123456789ABCDEFabcdef"
_NO_HEX = bytes(each for each in range(256) if each not in _HEX)
_HEX_OR_NOT = bytes(ord("h") if each in _HEX else ord(" ") for each in range(256))
_local = threading.local()


def override(connection: apsw.Connection) -> None:
    """Have the connection use them."""
    functions: list[tuple[str, int, Callable[..., Any]]] = [
        ("instr", 2, instr),
        ("replace", 3, replace),
        ("trim", 2, trim),
        ("ltrim", 2, ltrim),
        ("rtrim", 2, rtrim),
        ("unhex", 2, unhex),
    ]
    for name, count, function in functions:
        # Innocuous: they may stand in the schema, as SQLite's own may.
        connection.create_scalar_function(
            name, function, count, deterministic=True, flags=apsw.SQLITE_INNOCUOUS
        )


def instr(value: SqlValue, wanted: SqlValue) -> int | None:
    """Where ``wanted`` first is, from 1; 0: nowhere. In bytes if both are blobs."""
    if isinstance(value, str) and isinstance(wanted, str):
        return find(value, wanted) + 1
    if value is None or wanted is None:
        return None
    if isinstance(value, bytes) and isinstance(wanted, bytes):
        return find_bytes(value, wanted) + 1
    return find(_text(value), _text(wanted)) + 1


def replace(value: SqlValue, old: SqlValue, new: SqlValue) -> SqlValue:
    """Every ``old`` in ``value`` is ``new``. Raises apsw.TooBigError."""
    if value is None or old is None:
        return None
    pattern = _text(old)
    if pattern == "" or pattern[0] == "\0":
        # As SQLite, which takes NUL for the end here.
        return _text(value)
    if new is None:
        return None
    text, by = _text(value), _text(new)
    if len(text) > LARGE:
        replaced = replace_all(text, pattern, by, VALUE_BYTES_MAX)
        if replaced is None:
            raise apsw.TooBigError("string or blob too big")
        return replaced
    found = text.count(pattern) if len(by) > len(pattern) else 0
    if found and _bytes(text) + found * (_bytes(by) - _bytes(pattern)) > VALUE_BYTES_MAX:
        raise apsw.TooBigError("string or blob too big")
    return text.replace(pattern, by)


def trim(value: SqlValue, characters: SqlValue) -> str | None:
    """Without those characters at both ends."""
    return _trim(value, characters, left=True, right=True)


def ltrim(value: SqlValue, characters: SqlValue) -> str | None:
    """Without those characters in front."""
    return _trim(value, characters, left=True, right=False)


def rtrim(value: SqlValue, characters: SqlValue) -> str | None:
    """Without those characters at the end."""
    return _trim(value, characters, left=False, right=True)


def unhex(value: SqlValue, ignored: SqlValue) -> bytes | None:
    """Bytes of hex digits, between whose pairs the ignored characters may stand; None if others
    do. Raises apsw.TooBigError."""
    if value is None or ignored is None:
        return None
    text = _text(value).partition("\0")[0]  # as SQLite, which takes NUL for the end here
    if len(text) > _UNHEX_CHARACTERS_MAX:
        raise apsw.TooBigError("string or blob too big")
    data = text.encode()
    between = characters_of(data.translate(None, _HEX).decode())
    if between and not between <= characters_of(_text(ignored)):
        return None
    if b"h" in data.translate(_HEX_OR_NOT).replace(b"hh", b""):  # a run of them that is odd
        return None
    return bytes.fromhex(data.translate(None, _NO_HEX).decode())


def _trim(value: SqlValue, characters: SqlValue, *, left: bool, right: bool) -> str | None:
    if value is None or characters is None:
        return None
    text, chars = _text(value), characters_of(_text(characters).partition("\0")[0])
    if not chars:
        return text
    if len(chars) <= _SMALL_SET and len(text) <= LARGE:
        few = "".join(chars)
        text = text.lstrip(few) if left else text
        return text.rstrip(few) if right else text
    start = _run(text, chars, 1) if left else 0
    end = len(text) - (_run(text, chars, -1) if right and start < len(text) else 0)
    return text[start:end]


def _run(text: str, chars: set[str], direction: int) -> int:
    """How many characters of the set stand at the front, or at the end with -1."""
    length = 0
    while length < len(text):
        if direction > 0:
            piece = text[length : length + PIECE]
        else:
            piece = text[max(0, len(text) - length - PIECE) : len(text) - length]
        if set(piece) <= chars:
            length += len(piece)
            pause()
            continue
        return length + sum(1 for _ in takewhile(chars.__contains__, piece[::direction]))
    return length


def _text(value: SqlValue) -> str:
    """The value as SQLite's text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int):
        return str(int(value))
    return str(_plain().execute("SELECT CAST(? AS TEXT)", [value]).fetchall()[0][0])


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _plain() -> apsw.Connection:
    """A connection of this thread, for how SQLite writes a float."""
    connection: apsw.Connection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = apsw.Connection(":memory:")
    return connection
