"""SQLite's values, and how they look in JSON, both ways:

=============================  =====================================================
SQLite                         JSON
=============================  =====================================================
NULL                           ``null``
INTEGER                        an exact integer (``?int=string``: text beyond ±2**53)
REAL                           a number; ±infinity is ``{"$float": "Infinity"}`` (replies only)
TEXT                           a string; text that is not UTF-8 comes out as a blob
BLOB                           ``{"$blob": "<base64>"}``
=============================  =====================================================
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dosql.errors import InvalidRequestError

SqlValue = None | int | float | str | bytes
"""What SQLite stores. ``bool`` is accepted as a parameter and stored as 0 or 1."""
Params = Sequence[SqlValue] | Mapping[str, SqlValue]
"""Positional (``?``) or named (``:name``, ``@name``, ``$name``; the key without the sign)."""

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
_JS_SAFE = 2**53


def decode_params(params: list[Any] | dict[str, Any] | None) -> Params:
    """JSON parameters as SQLite values.

    Raises:
        InvalidRequestError: ``invalid_parameter``: a list or object that is not a tagged blob,
            an integer beyond 64 bits, a float that is not finite, text that is not Unicode.
    """
    if params is None:
        return ()
    if isinstance(params, list):
        for value in params:
            if type(value) is not str or not value.isascii():
                return [_decode_value(value, index) for index, value in enumerate(params)]
        return params
    return {name: _decode_value(value, name) for name, value in params.items()}


def _decode_value(value: Any, where: int | str) -> SqlValue:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _bad(where, "holds a lone surrogate, which is not text") from None
        return value  # type: ignore[no-any-return]
    if kind is int:
        if not INT64_MIN <= value <= INT64_MAX:
            raise _bad(where, "does not fit into 64 bits")
        return value  # type: ignore[no-any-return]
    if kind is float:
        if not math.isfinite(value):
            raise _bad(where, "is not a finite number")
        return value  # type: ignore[no-any-return]
    if value is None or kind is bool:
        return value  # type: ignore[no-any-return]
    if kind is dict and value.keys() == {"$blob"} and isinstance(value["$blob"], str):
        try:
            return base64.b64decode(value["$blob"], validate=True)
        except (binascii.Error, ValueError):
            raise _bad(where, "is not valid base64") from None
    raise _bad(where, 'must be null, a number, a string, a boolean or {"$blob": "<base64>"}')


def _bad(where: int | str, what: str) -> InvalidRequestError:
    name = f"Parameter {where + 1}" if isinstance(where, int) else f"Parameter {where!r}"
    return InvalidRequestError(f"{name} {what}.", code="invalid_parameter")


def encode_params(params: Params | None) -> list[Any] | dict[str, Any] | None:
    """SQLite values as JSON parameters; the counterpart of `decode_params`."""
    if params is None:
        return None
    if isinstance(params, Mapping):
        return {name: _encode_param(value) for name, value in params.items()}
    if isinstance(params, (str, bytes)):
        raise InvalidRequestError(
            "Parameters must be a list, a tuple or a mapping.", code="invalid_parameter"
        )
    return [_encode_param(value) for value in params]


def _encode_param(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequestError("A parameter is not a finite number.", code="invalid_parameter")
    return value


def encode_rows(rows: list[tuple[SqlValue, ...]], *, int_as_text: bool = False) -> list[Any]:
    """Rows as JSON-ready lists. Rows without blobs, infinities or (if asked) large integers
    are handed through untouched: one look at the types decides."""
    kinds = {type(value) for row in rows for value in row}
    if bytes in kinds or float in kinds or (int_as_text and int in kinds):
        return [[_encode_value(value, int_as_text) for value in row] for row in rows]
    return rows


def _encode_value(value: SqlValue, int_as_text: bool) -> object:
    if isinstance(value, bytes):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "Infinity" if value > 0 else "-Infinity"}
    if int_as_text and isinstance(value, int) and not -_JS_SAFE <= value <= _JS_SAFE:
        return str(value)
    return value


def decode_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a reply with their tagged values as Python's own."""
    return [{name: decode_value(value) for name, value in row.items()} for row in rows]


def decode_value(value: Any) -> Any:
    """One value of a reply: ``{"$blob"}`` to bytes, ``{"$float"}`` to ±infinity."""
    if type(value) is dict:
        if "$blob" in value:
            return base64.b64decode(value["$blob"])
        if "$float" in value:
            return float(value["$float"])
    return value
