"""A second database that is fed with captured changes: the same SQLite, none of our code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from dosql.sqlite.change_log import Change, Op


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Replica:
    """Begins empty; triggers and foreign keys do not act, for what they did is in the changes."""

    def __init__(self) -> None:
        self.connection = apsw.Connection(":memory:")

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.op is Op.SCHEMA:
                if "trigger" not in (change.text or "").lower():
                    self.connection.execute(change.text or "")
            elif change.op is Op.RESET:
                raise AssertionError(f"a reset: {change.text}")
            else:
                self._apply_row(change)

    def _apply_row(self, change: Change) -> None:
        assert change.pk is not None
        table = quoted(change.table)
        where = " AND ".join(f"{quoted(name)} IS ?" for name in change.pk)
        key = list(change.pk.values())
        if change.op is Op.DELETE:
            done = self._run(f"DELETE FROM {table} WHERE {where}", key)
            assert done == 1, change
            return
        assert change.new is not None
        names, values = list(change.columns), list(change.new)
        if change.op is Op.UPDATE:
            sets = ", ".join(f"{quoted(name)} = ?" for name in names)
            assert self._run(f"UPDATE {table} SET {sets} WHERE {where}", values + key) == 1, change
            return
        if "rowid" in change.pk:
            names, values = ["rowid", *names], [*key, *values]
        marks = ", ".join("?" * len(names))
        listed = ", ".join(map(quoted, names))
        self._run(f"INSERT INTO {table} ({listed}) VALUES ({marks})", values)

    def _run(self, sql: str, values: list[Any]) -> int:
        self.connection.execute(sql, values)
        return self.connection.changes()

    def rows(self, sql: str) -> list[Any]:
        """Rows of an `all_of`."""
        return comparable(self.connection.execute(sql).fetchall())


def all_of(table: str, columns: tuple[str, ...]) -> str:
    """Reads every value with its type and its bytes, whatever text is in it."""
    values = [f"typeof({name}), CAST({name} AS BLOB)" for name in columns]
    return f"SELECT {', '.join(values)} FROM {quoted(table)}"


def comparable(rows: Iterable[Any]) -> list[Any]:
    """Rows of an `all_of` in a fixed order. Text that is none is told as a blob."""
    return sorted(
        [
            ("blob" if kind == "text" and not _is_text(value) else kind, value)
            for kind, value in zip(row[::2], row[1::2], strict=True)
        ]
        for row in rows
    )


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
