"""What statements answer, and how rows are drawn under a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from dosql.errors import LimitError
from dosql.wire.values import SqlValue

Row = tuple[SqlValue, ...]


class Rows(msgspec.Struct, frozen=True):
    """The answer of a statement that returns rows. A Struct because one is made per request."""

    columns: tuple[str, ...]
    """Names as SQLite gives them; they may repeat."""
    rows: list[Row]


class RunResult(msgspec.Struct, frozen=True):
    """The answer of a statement that writes."""

    changes: int
    """Rows inserted, updated or deleted by the statement itself; 0 for schema changes."""
    last_insert_rowid: int
    """Row id of the last row inserted, 0 if none was."""


def draw(rows: Iterable[Row], rows_max: int, bytes_max: int) -> list[Row]:
    """Take all rows.

    Every value counts 8 bytes, text one more per character, blobs one more per byte.

    Raises:
        LimitError: ``result_too_large``, at the first row over a limit.
    """
    drawn: list[Row] = []
    size = 0
    for row in rows:
        size += 8 * len(row)
        for value in row:
            if type(value) is str or type(value) is bytes:
                size += len(value)
        drawn.append(row)
        if size > bytes_max or len(drawn) > rows_max:
            raise _too_large(size > bytes_max, rows_max, bytes_max)
    return drawn


def size_of(rows: list[Row]) -> int:
    """Bytes of values, as `draw` counts them."""
    size = 0
    for row in rows:
        size += 8 * len(row)
        for value in row:
            if isinstance(value, (str, bytes)):
                size += len(value)
    return size


def _too_large(bytes_over: bool, rows_max: int, bytes_max: int) -> LimitError:
    what = f"{bytes_max} bytes" if bytes_over else f"{rows_max} rows"
    return LimitError(f"The result has more than {what}; use LIMIT.", code="result_too_large")


def lenient(sql: str, columns: int) -> str:
    """The same SELECT, giving for each column its type and its value, text as a blob.

    Text that is not UTF-8 cannot be fetched as text; see `decode`. The inner statement is
    materialized, so that random() and its like are evaluated once.
    """
    names = ", ".join(f"c{number}" for number in range(columns))
    values = ", ".join(
        f"typeof(c{number}), iif(typeof(c{number}) = 'text', CAST(c{number} AS BLOB), c{number})"
        for number in range(columns)
    )
    inner = sql.strip().rstrip(";")
    return f"WITH dosql({names}) AS MATERIALIZED ({inner}\n) SELECT {values} FROM dosql"


def decode(rows: Iterable[Row], encoding: str) -> Iterator[Row]:
    """The rows of a `lenient` statement as the original would have given them; text that does
    not decode stays bytes."""
    for row in rows:
        yield tuple(
            _text(value, encoding) if kind == "text" and isinstance(value, bytes) else value
            for kind, value in zip(row[::2], row[1::2], strict=True)
        )


def _text(value: bytes, encoding: str) -> SqlValue:
    try:
        return value.decode(encoding)
    except UnicodeDecodeError:
        return value
