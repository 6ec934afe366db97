"""What commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

import msgspec

from dosql.errors import DosqlError


def print_json(body: object) -> None:
    """A body as on the wire, indented."""
    print(msgspec.json.format(msgspec.json.encode(body), indent=2).decode())


def print_columns(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A plain table for people; nothing but the titles if it is empty."""
    widths = [max(map(text_width, cells)) for cells in zip(titles, *lines, strict=True)]
    for cells in (titles, *lines):
        padded = (pad(cell, width) for cell, width in zip(cells, widths, strict=True))
        print("  ".join(padded).rstrip())


def complain(sentence: str) -> None:
    """One line on stderr, with the program's name."""
    print(f"dosql: {sentence}", file=sys.stderr)


def print_error(error: DosqlError) -> None:
    """The sentence, the code, and the request id by which the server's log knows it."""
    complain(describe(error))


def describe(error: DosqlError) -> str:
    """An error in one line."""
    facts = [error.code]
    if error.sqlite_code is not None:
        facts.append(error.sqlite_code)
    if error.request_id:
        facts.append(f"request {error.request_id}")
    return f"{printable(error.message)} ({', '.join(facts)})"


def printable(text: str) -> str:
    """Text without control characters, which could drive the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def text_width(text: str) -> int:
    """Columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled with spaces up to ``width`` columns."""
    space = " " * (width - text_width(text))
    return space + text if right else text + space


def size_text(size_bytes: int) -> str:
    """Bytes for people."""
    size = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
