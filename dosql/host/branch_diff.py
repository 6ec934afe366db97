"""Comparing two databases: their schemas by SQL, their rows by primary key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw

from dosql.wire.branches import RowDifference, SchemaDifference, TableDifference
from dosql.wire.values import SqlValue, encode_rows

Change = Literal["added", "removed", "changed"]
CHANGES: dict[str, Change] = {"INSERT": "added", "DELETE": "removed", "UPDATE": "changed"}
_SCHEMA = (
    "SELECT type, name, tbl_name, sql FROM {schema}.sqlite_schema WHERE sql IS NOT NULL"
    " AND name NOT LIKE '\\_dosql\\_%' ESCAPE '\\' AND tbl_name NOT LIKE '\\_dosql\\_%' ESCAPE '\\'"
    " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
)
_ROWID = "rowid"


@dataclass(frozen=True, slots=True)
class Item:
    """A table, index, view or trigger."""

    type: str
    name: str
    table: str
    sql: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is not the same."""

    schema: list[SchemaDifference]
    tables: list[TableDifference]


@contextmanager
def opened(left: Path, right: Path) -> Iterator[apsw.Connection]:
    """Both files, of the caller's own, in one connection: ``right`` is main, ``left`` is other."""
    connection = apsw.Connection(str(right))
    try:
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        connection.execute("ATTACH ? AS other", (str(left),))
        yield connection
    finally:
        connection.close()


def compare(left: Path, right: Path, *, rows_max: int) -> Comparison:
    """How ``right`` differs from ``left``; up to ``rows_max`` rows of each table are told."""
    with opened(left, right) as connection:
        before, after = schema_of(connection, "other"), schema_of(connection, "main")
        return Comparison(
            list(_schema_differences(before, after)),
            list(_table_differences(connection, rows_max)),
        )


def schema_of(connection: apsw.Connection, schema: str) -> dict[tuple[str, str], Item]:
    """All of a tenant's own, by type and name."""
    items = [Item(*row) for row in connection.execute(_SCHEMA.format(schema=schema))]
    shadows = {name for name, kind in _tables(connection, schema) if kind == "shadow"}
    return {(each.type, each.name): each for each in items if each.table not in shadows}


def _schema_differences(
    before: dict[tuple[str, str], Item], after: dict[tuple[str, str], Item]
) -> Iterator[SchemaDifference]:
    for of in sorted(before.keys() | after.keys()):
        old, new = before.get(of), after.get(of)
        if old is None or new is None or old.sql != new.sql:
            change: Change = "added" if old is None else "removed" if new is None else "changed"
            yield SchemaDifference(
                *of,
                change,
                None if old is None else old.sql,
                None if new is None else new.sql,
            )


def tables_of(connection: apsw.Connection, schema: str) -> set[str]:
    """Ordinary tables of a tenant's own."""
    return {name for name, kind in _tables(connection, schema) if kind == "table"}


def shadows_of(connection: apsw.Connection, schema: str) -> set[str]:
    """The tables that virtual tables keep their content in."""
    return {name for name, kind in _tables(connection, schema) if kind == "shadow"}


def _tables(connection: apsw.Connection, schema: str) -> Iterator[tuple[str, str]]:
    for row in connection.execute(f"PRAGMA {schema}.table_list"):
        name = str(row[1])
        if not name.startswith(("sqlite_", "_dosql_")):
            yield name, str(row[2])


def columns_of(connection: apsw.Connection, schema: str, table: str) -> list[tuple[str, int]]:
    """Names, each with its place in the primary key from 1, or 0; those that are computed are
    left out, as in changesets."""
    return [
        (str(row[1]), int(str(row[5])))
        for row in connection.execute(f"PRAGMA {schema}.table_xinfo({quoted(table)})")
        if row[6] == 0
    ]


def has_key(columns: Iterable[tuple[str, int]]) -> bool:
    """Whether the table has a primary key of its own."""
    return any(place for _, place in columns)


def quoted(name: str) -> str:
    """As an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def changeset_of(connection: apsw.Connection, tables: Iterable[str]) -> bytes:
    """What turns these tables of ``other`` into those of ``main``. They are in both, with the same
    columns. Tables without a primary key are compared by rowid."""
    session = apsw.Session(connection, "main")
    try:
        session.config(apsw.SQLITE_SESSION_OBJCONFIG_ROWID, True)
        for table in tables:
            session.attach(table)
            session.diff("other", table)
        return session.changeset()
    finally:
        session.close()


# --- rows ------------------------------------------------------------------------------------


def _table_differences(connection: apsw.Connection, rows_max: int) -> Iterator[TableDifference]:
    before, after = tables_of(connection, "other"), tables_of(connection, "main")
    for table in sorted(before | after):
        if table not in before or table not in after:
            yield _one_sided(connection, table, added=table in after, rows_max=rows_max)
            continue
        columns = columns_of(connection, "main", table)
        if columns != columns_of(connection, "other", table):
            yield TableDifference(table, 0, 0, 0, [], truncated=False, compared=False)
            continue
        found = _difference(connection, table, columns, rows_max)
        if found is not None:
            yield found


def _one_sided(
    connection: apsw.Connection, table: str, *, added: bool, rows_max: int
) -> TableDifference:
    schema = "main" if added else "other"
    columns = columns_of(connection, schema, table)
    names = [name for name, _ in columns]
    source = f"{schema}.{quoted(table)}"
    count = int(str(connection.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0]))
    rowid = [] if has_key(columns) else [_ROWID]
    shown = ", ".join([*rowid, *map(quoted, names)])
    rows: list[RowDifference] = []
    for row in connection.execute(f"SELECT {shown} FROM {source} LIMIT ?", (rows_max,)):
        key = key_of(columns, row[len(rowid) :], row[0])
        whole = encoded(names, row[len(rowid) :])
        if added:
            rows.append(RowDifference("added", key, None, whole))
        else:
            rows.append(RowDifference("removed", key, whole, None))
    return TableDifference(
        table,
        count if added else 0,
        0 if added else count,
        0,
        rows,
        truncated=count > len(rows),
    )


def _difference(
    connection: apsw.Connection, table: str, columns: list[tuple[str, int]], rows_max: int
) -> TableDifference | None:
    counts = dict.fromkeys(CHANGES.values(), 0)
    rows: list[RowDifference] = []
    for each in apsw.Changeset.iter(changeset_of(connection, [table])):
        change = CHANGES[each.op]
        counts[change] += 1
        if len(rows) < rows_max:
            rows.append(_row(connection, table, columns, change, each))
    total = sum(counts.values())
    if not total:
        return None
    return TableDifference(
        table,
        counts["added"],
        counts["removed"],
        counts["changed"],
        rows,
        truncated=total > len(rows),
    )


def _row(
    connection: apsw.Connection,
    table: str,
    columns: list[tuple[str, int]],
    change: Change,
    each: apsw.TableChange,
) -> RowDifference:
    image = each.new if each.old is None else each.old
    assert image is not None
    key = [value for value, place in zip(image, places(columns, image), strict=True) if place]
    before = None if change == "added" else fetch(connection, "other", table, columns, key)
    after = None if change == "removed" else fetch(connection, "main", table, columns, key)
    return RowDifference(change, named_key(columns, key), before, after)


def places(columns: list[tuple[str, int]], image: tuple[Any, ...]) -> list[int]:
    """Of each value in a changeset's row: its place in the key, or 0. Without a key the row id
    stands in front."""
    own = [place for _, place in columns]
    return [1, *[0] * len(columns)] if len(image) > len(own) else own


def fetch(
    connection: apsw.Connection,
    schema: str,
    table: str,
    columns: list[tuple[str, int]],
    key: list[Any],
) -> dict[str, Any] | None:
    """A row by its key, whose values are in the order of the columns; None: there is none."""
    names = [name for name, _ in columns]
    keys = [quoted(name) for name, place in columns if place] or [_ROWID]
    where = " AND ".join(f"{name} = ?" for name in keys)
    shown = ", ".join(map(quoted, names))
    found = connection.execute(
        f"SELECT {shown} FROM {schema}.{quoted(table)} WHERE {where}", key
    ).fetchall()
    return encoded(names, found[0]) if found else None


def named_key(columns: list[tuple[str, int]], key: list[Any]) -> dict[str, Any]:
    """The values of a key by the names of their columns."""
    return encoded([name for name, place in columns if place] or [_ROWID], tuple(key))


def key_of(
    columns: list[tuple[str, int]], row: tuple[SqlValue, ...], rowid: SqlValue
) -> dict[str, Any]:
    """The key within a whole row."""
    key = [value for value, (_, place) in zip(row, columns, strict=True) if place]
    return named_key(columns, key or [rowid])


def encoded(names: list[str], row: tuple[SqlValue, ...]) -> dict[str, Any]:
    """A row as JSON has it."""
    return dict(zip(names, encode_rows([row])[0], strict=True))
