"""Adding the rows of a CSV file to a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dosql.cli.shell.dump import quote
from dosql.errors import DosqlError, InvalidRequestError
from dosql.limits import VALUE_BYTES_MAX, VARIABLES_MAX

if TYPE_CHECKING:
    from dosql.client import Tenant, Transaction

_CHARACTERS_AT_ONCE = 200_000
"""Of one request: even with every character escaped it stays below the server's body limit."""


def import_csv(tenant: Tenant, transaction: Transaction | None, path: Path, table: str) -> int:
    """Insert every line of the file; returns how many.

    Without such a table one is made, its columns named by the first line; otherwise the first
    line is data too. All values arrive as text and take the affinity of their columns. The
    file is read through once before anything is written. Inside a transaction it is all or
    nothing; outside each request is.

    Raises:
        InvalidRequestError: ``shell_command``: lines of different length, or not CSV.
        DosqlError: from the server; the message says how many rows had been imported.
    """
    database = transaction or tenant
    columns = _columns_of(database, table)
    header = None if columns else _header(path)
    wanted = columns or header or []
    if not wanted:
        raise _wrong(path, 1, "the file is empty")
    _check(path, len(wanted))
    if header is not None:
        names = ", ".join(f"{quote(name)} TEXT" for name in header)
        database.run(f"CREATE TABLE {quote(table)}({names})")
    into = f"INSERT INTO {quote(table)}({','.join(map(quote, wanted))}) VALUES "
    place = f"({','.join('?' * len(wanted))})"
    count = 0
    try:
        for rows in _portions(path, len(wanted), skip=header is not None):
            sql = into + ",".join([place] * len(rows))
            database.run(sql, [value for row in rows for value in row])
            count += len(rows)
    except DosqlError as exc:
        kept = "had been imported" if transaction is None else "had been inserted"
        exc.message += f" {count} rows before these {kept}."
        raise
    return count


def _columns_of(database: Tenant | Transaction, table: str) -> list[str]:
    info = database.query_rows("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", [table])
    return [str(name) for (name,) in info.rows]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of the CSV file that hold anything, with the numbers they end at."""
    csv.field_size_limit(VALUE_BYTES_MAX)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as exc:
            raise _wrong(path, reader.line_num, str(exc)) from exc
        except UnicodeDecodeError as exc:
            raise _wrong(path, reader.line_num, "not UTF-8 text") from exc


def _header(path: Path) -> list[str]:
    return next((row for _, row in _lines(path)), [])


def _check(path: Path, width: int) -> None:
    for number, row in _lines(path):
        if len(row) != width:
            raise _wrong(path, number, f"{len(row)} values instead of {width}")


def _portions(path: Path, width: int, *, skip: bool) -> Iterator[list[list[str]]]:
    """Rows, as many at once as one statement can carry."""
    rows_max = max(1, VARIABLES_MAX // width)
    lines = _lines(path)
    if skip:
        next(lines, None)
    portion: list[list[str]] = []
    characters = 0
    for _, row in lines:
        portion.append(row)
        characters += sum(map(len, row))
        if len(portion) >= rows_max or characters >= _CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


def _wrong(path: Path, line: int, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{path}, line {line}: {what}.", code="shell_command")
