"""SQL parameters given on a command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from dosql.wire.values import INT64_MAX, INT64_MIN, Params, SqlValue

_NAMED = re.compile(r"[:@$](\w+)=(.*)", re.DOTALL)
_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)
_REAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)", re.ASCII)
_BLOB = re.compile(r"[xX]'((?:[0-9a-fA-F]{2})*)'", re.ASCII)


def parse_params(texts: Sequence[str]) -> Params | None:
    """Positional values, or named ones written ``:name=value``.

    Raises:
        ValueError: a mixture of both.
    """
    matches = [_NAMED.fullmatch(text) for text in texts]
    if all(matches):
        return {m[1]: parse_value(m[2]) for m in matches if m is not None} or None
    if any(matches):
        raise ValueError("parameters are either all positional or all :name=value")
    return [parse_value(text) for text in texts]


def parse_value(text: str) -> SqlValue:
    """A number if it is written as one, ``null``, ``x'00ff'``; everything else is text.

    JSON quotes make text of what would be a number: ``"42"``.
    """
    if text in ("null", "NULL"):
        return None
    if _INTEGER.fullmatch(text) and INT64_MIN <= int(text) <= INT64_MAX:
        return int(text)
    if _REAL.fullmatch(text):
        return float(text)
    if match := _BLOB.fullmatch(text):
        return bytes.fromhex(match[1])
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.DecodeError:
            return text
    return text
