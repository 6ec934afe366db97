"""Cutting typed text into statements.

The server takes one statement at a time, so the shell must know where one ends: at a semicolon
outside strings, names and comments, and not inside the body of a trigger.
"""

from __future__ import annotations

import re
import sqlite3

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*(?:'|\Z)      # text; an open one reaches to the end
    | "(?:[^"]|"")*(?:"|\Z)
    | `(?:[^`]|``)*(?:`|\Z)
    | \[[^\]]*(?:\]|\Z)
    | --[^\n]*
    | /\*.*?(?:\*/|\Z)
    | (?P<end>;)
    """,
    re.DOTALL | re.VERBOSE,
)
_BLANK = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/|;)*", re.DOTALL)
_FIRST_WORDS = re.compile(r"(\w+)(?:\s+(?:transaction\s+)?(\w+))?", re.ASCII | re.IGNORECASE)


def split_statements(text: str) -> tuple[list[str], str]:
    """The complete statements, without semicolons, and the rest that is not complete yet."""
    statements: list[str] = []
    start = 0
    for token in _TOKEN.finditer(text):
        if token["end"] is None:
            continue
        candidate = text[start : token.end()]
        # Knows triggers: inside BEGIN ... END a semicolon ends nothing.
        if sqlite3.complete_statement(candidate):
            if not is_blank(candidate):
                statements.append(candidate[:-1].strip())
            start = token.end()
    return statements, text[start:]


def is_blank(text: str) -> bool:
    """Nothing but white space, comments and semicolons."""
    return _BLANK.fullmatch(text) is not None


def is_complete(text: str) -> bool:
    """Nothing is missing at the end: a dot command, or statements up to a semicolon."""
    return text.lstrip().startswith(".") or is_blank(split_statements(text)[1])


def transaction_verb(statement: str) -> str | None:
    """``begin``, ``commit`` or ``rollback`` if that is all the statement does."""
    blank = _BLANK.match(statement)
    match = _FIRST_WORDS.match(statement, blank.end() if blank else 0)
    if match is None:
        return None
    first, second = match[1].lower(), (match[2] or "").lower()
    if first == "begin":
        return "begin"
    if first in ("commit", "end"):
        return "commit"
    if first == "rollback" and second != "to":
        return "rollback"
    return None
