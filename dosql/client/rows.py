"""What statements return, and how rows become the caller's own types."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from dosql.errors import InvalidRequestError
from dosql.wire.values import decode_rows, decode_value

T = TypeVar("T")

Row = dict[str, Any]
"""Column name to value. Of two columns with one name the last wins; `Rows` keeps both."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a statement that returns no rows did."""

    changes: int
    """Rows inserted, updated or deleted by the statement itself, not by its triggers."""
    last_insert_rowid: int
    """Rowid of the row inserted last; 0 if this statement inserted none."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A result with its column names in order, also when there are no rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def rows_from_json(rows: Iterable[Row]) -> list[Row]:
    """Rows of a reply with Python's own ``bytes`` and infinities."""
    return decode_rows(rows)


def table_from_json(columns: list[str], rows: list[list[Any]]) -> Rows:
    """The same for rows that came as arrays."""
    return Rows(tuple(columns), [tuple(decode_value(value) for value in row) for row in rows])


def convert_rows(rows: list[Row], into: type[T]) -> list[T]:
    """Rows as instances of a dataclass, a TypedDict, a msgspec.Struct or a pydantic model.

    Fields are matched by column name; columns without a field are ignored (unless the type
    forbids them). SQLite's own types are widened where the field asks for it: 0 and 1 to
    ``bool``, ISO text to ``datetime``, text to an enum.

    Raises:
        InvalidRequestError: ``row_mismatch``: a row does not fit; the message names the field.
    """
    if hasattr(into, "__pydantic_validator__"):
        return _convert_with_pydantic(rows, into)
    try:
        return msgspec.convert(rows, list[into], strict=False, builtin_types=(bytes,))  # type: ignore[valid-type]
    except msgspec.ValidationError as exc:
        raise _mismatch(into, _in_words(str(exc))) from exc
    except TypeError as exc:
        raise _mismatch(into, str(exc)) from exc


def _convert_with_pydantic(rows: list[Row], into: type[T]) -> list[T]:
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(list[into])  # type: ignore[valid-type]
    try:
        return adapter.validate_python(rows)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        row, *fields = first["loc"]
        where = ".".join(str(field) for field in fields)
        raise _mismatch(into, f"row {row}, {where}: {first['msg']}") from exc


def _mismatch(into: type[Any], why: str) -> InvalidRequestError:
    name = getattr(into, "__name__", str(into))
    return InvalidRequestError(f"A row does not fit {name}: {why}", code="row_mismatch")


def _in_words(message: str) -> str:
    """msgspec's ``- at `$[0].name` `` without its path syntax."""
    message = re.sub(r"`\$\[(?:\d+|\.\.\.)\]\.?([^`]*)`", r"`\1`", message)
    return message.removesuffix(" - at ``")
