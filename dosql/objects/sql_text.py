"""Which part of an SQL text is complete: what can be run before the rest of it has come."""

from __future__ import annotations

import re

import apsw

from dosql.sqlite.statements import check_text, is_blank

_PARTS = re.compile(
    r"""
    '[^']*' | "[^"]*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?\*/  # no semicolon counts in these
    | (?P<end>;)
    | (?P<open>['"`\[] | /\*)  # one of them that does not end here
    """,
    re.VERBOSE | re.DOTALL,
)


def complete_statements(text: str) -> tuple[list[str], str]:
    """The statements that end with their semicolon, without those that are blank, and the text
    behind the last of them. The semicolons inside of a trigger end no statement.

    Raises:
        InvalidRequestError: ``invalid_encoding``: there is a NUL.
    """
    check_text(text)
    statements: list[str] = []
    start = 0
    for part in _PARTS.finditer(text):
        if part["open"]:
            break
        if part["end"] and apsw.complete(statement := text[start : part.end()]):
            start = part.end()
            if not is_blank(statement):
                statements.append(statement)
    return statements, text[start:]
