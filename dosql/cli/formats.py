"""Result sets as text: the output modes of ``query`` and of the shell."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, TextIO

import msgspec

from dosql.cli.output import pad, printable, text_width
from dosql.wire.values import encode_rows

if TYPE_CHECKING:
    from dosql.client import Rows, RunResult

Mode = Literal["column", "csv", "json", "line", "table"]
_BLOB_BYTES_SHOWN = 32


def write_rows(rows: Rows, mode: Mode, out: TextIO) -> None:
    """Print a result set; modes for people show no control characters."""
    out.write(_WRITERS[mode](rows))
    out.flush()


def run_result_text(result: RunResult) -> str:
    """What a statement without rows did, for people."""
    if result.changes == 0 and result.last_insert_rowid == 0:
        return "Done."
    plural = "" if result.changes == 1 else "s"
    rowid = f", last rowid {result.last_insert_rowid}" if result.last_insert_rowid else ""
    return f"{result.changes} row{plural} changed{rowid}"


def literal(value: Any) -> str:
    """The value as SQL text that yields exactly it."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, str):
        if "\0" in value:  # SQL text ends at the first NUL
            return f"CAST(X'{value.encode().hex()}' AS TEXT)"
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def _real(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "9e999" if value > 0 else "-9e999"


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        if len(value) <= _BLOB_BYTES_SHOWN:
            return f"x'{value.hex()}'"
        return f"x'{value[:_BLOB_BYTES_SHOWN].hex()}...' ({len(value)} bytes)"
    return printable(str(value))


def _aligned(rows: Rows) -> tuple[list[int], list[list[str]]]:
    """Widths of the columns, and all cells padded to them, titles first."""
    titles = [printable(name) for name in rows.columns]
    cells = [[_shown(value) for value in row] for row in rows.rows]
    widths = [max(map(text_width, column)) for column in zip(titles, *cells, strict=True)]
    lines = [[pad(title, width) for title, width in zip(titles, widths, strict=True)]]
    for row, shown in zip(rows.rows, cells, strict=True):
        lines.append(
            [
                pad(cell, width, right=isinstance(value, (int, float)))
                for cell, width, value in zip(shown, widths, row, strict=True)
            ]
        )
    return widths, lines


def _column(rows: Rows) -> str:
    widths, lines = _aligned(rows)
    lines.insert(1, ["-" * width for width in widths])
    return "".join("  ".join(cells).rstrip() + "\n" for cells in lines)


def _table(rows: Rows) -> str:
    widths, lines = _aligned(rows)
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+\n"
    text = ["| " + " | ".join(cells) + " |\n" for cells in lines]
    return rule + text[0] + rule + "".join(text[1:]) + (rule if len(text) > 1 else "")


def _line(rows: Rows) -> str:
    width = max(map(text_width, rows.columns), default=0)
    return "\n".join(
        "".join(
            f"{pad(printable(name), width, right=True)} = {_shown(value)}\n"
            for name, value in zip(rows.columns, row, strict=True)
        )
        for row in rows.rows
    )


def _csv(rows: Rows) -> str:
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(rows.columns)
    for row in rows.rows:
        writer.writerow([f"x'{v.hex()}'" if isinstance(v, bytes) else v for v in row])
    return buffer.getvalue()


def _json(rows: Rows) -> str:
    encoded = [dict(zip(rows.columns, row, strict=True)) for row in encode_rows(rows.rows)]
    return "[" + ",\n ".join(msgspec.json.encode(row).decode() for row in encoded) + "]\n"


_WRITERS: dict[Mode, Callable[[Rows], str]] = {
    "column": _column,
    "csv": _csv,
    "json": _json,
    "line": _line,
    "table": _table,
}
MODES: tuple[Mode, ...] = tuple(_WRITERS)
