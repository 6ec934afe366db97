"""Images of rows before and after a change, and changes as they are stored."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from dosql.sqlite.change_log import Op
from dosql.sqlite.change_tables import CapturedTable
from dosql.wire.values import SqlValue

Image = list[SqlValue]
Entry = tuple[CapturedTable | str, bytes]
"""A change as the `ChangeLog` takes it: its table (by name alone, if it is not one of a row)."""
_encode = msgspec.msgpack.Encoder().encode


def told(table: CapturedTable, update: apsw.PreUpdate, which: str) -> Image | None:
    """SQLite's own image, "old" or "new"; None if it is not to be had."""
    try:
        values: Any = getattr(update, which)
    except (UnicodeDecodeError, apsw.RangeError):
        return None
    image = list(values) if table.positions is None else [values[at] for at in table.positions]
    for at in table.reals:
        if type(image[at]) is int:
            image[at] = float(image[at])
    return image


def row_entries(
    table: CapturedTable,
    op: Op,
    rowid: int,
    old: Image | None,
    new: Image | None,
    new_rowid: int,
) -> list[Entry]:
    """The change of a row. One of its key is the end of a row and the beginning of another."""
    if op is Op.UPDATE:
        assert old is not None and new is not None
        key = _key(table, old, rowid), _key(table, new, new_rowid)
        if key[0] != key[1]:
            return [
                (table, _encode((Op.DELETE, _told_rowid(table, rowid, old), old, None))),
                (table, _encode((Op.INSERT, _told_rowid(table, new_rowid, new), None, new))),
            ]
    image = new if old is None else old
    assert image is not None
    return [(table, _encode((op, _told_rowid(table, rowid, image), old, new)))]


def schema_entry(table: str, statement: str) -> Entry:
    """A change of the schema."""
    return table, _encode((Op.SCHEMA, statement))


def reset_entry(reason: str) -> Entry:
    """Something changed that cannot be told."""
    return "", _encode((Op.RESET, reason))


_RESET_HEAD = _encode((Op.RESET, ""))[:2]


def is_reset(entry: Entry) -> bool:
    """Whether it is a `reset_entry`."""
    return entry[1][:2] == _RESET_HEAD


def _key(table: CapturedTable, image: Image, rowid: int) -> object:
    key = tuple([image[at] for at in table.key])
    return rowid if not key or None in key else key


def _told_rowid(table: CapturedTable, rowid: int, image: Image) -> int | None:
    """The row id where it is the key; NULLs, which SQLite allows in a key, tell no rows apart."""
    if table.rowid is None:
        return None
    for at in table.key:
        if image[at] is None:
            return rowid
    return None if table.key else rowid
