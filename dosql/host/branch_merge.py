"""Merging: what changed in a branch since its beginning, applied to its parent as it is now."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import apsw

from dosql.errors import ConflictError
from dosql.host.branch_diff import (
    CHANGES,
    Item,
    changeset_of,
    columns_of,
    encoded,
    named_key,
    opened,
    places,
    quoted,
    schema_of,
    shadows_of,
    tables_of,
)
from dosql.sqlite.changesets import apply_changeset
from dosql.sqlite.database import Database
from dosql.wire.branches import ConflictPolicy, MergeConflict
from dosql.wire.values import SqlValue

_CONFLICTS_MAX = 1_000
Reason = Literal["changed", "missing", "exists", "constraint", "foreign_key"]
_REASONS: dict[int, Reason] = {
    apsw.SQLITE_CHANGESET_DATA: "changed",
    apsw.SQLITE_CHANGESET_NOTFOUND: "missing",
    apsw.SQLITE_CHANGESET_CONFLICT: "exists",
    apsw.SQLITE_CHANGESET_CONSTRAINT: "constraint",
    apsw.SQLITE_CHANGESET_FOREIGN_KEY: "foreign_key",
}
_ORDER = {"table": 0, "index": 1, "view": 2, "trigger": 3}


@dataclass(slots=True)
class MergeOutcome:
    """What a merge did, or would do."""

    merged: bool = False
    wrote: bool = False
    added: int = 0
    removed: int = 0
    changed: int = 0
    conflicts: list[MergeConflict] = field(default_factory=list[MergeConflict])
    conflict_count: int = 0


class _Undo(Exception):
    """Ends the transaction of a merge that is not to be kept."""


class Merger:
    """`read` what the branch changed, then `apply` it; both block."""

    def __init__(self, policy: ConflictPolicy, *, dry_run: bool) -> None:
        self._policy = policy
        self._dry_run = dry_run
        self._changeset = b""
        self._columns: dict[str, list[tuple[str, int]]] = {}
        self._added: list[Item] = []
        self._removed: list[Item] = []
        self._rows: dict[tuple[str, tuple[Any, ...]], tuple[SqlValue, ...]] = {}
        """Whole rows of the branch that a change alone would not give."""

    # --- the branch ---------------------------------------------------------------------------

    def read(self, base: Path, branch: Path) -> None:
        """What turns ``base`` into ``branch``; both are files of the caller's own, and change.

        Raises:
            ConflictError: ``merge_schema_differs``: a table of the branch has got other columns;
                ``merge_unsupported``: a virtual table changed.
        """
        with opened(base, branch) as connection:
            before, after = schema_of(connection, "other"), schema_of(connection, "main")
            for of, item in after.items():
                if of in before and before[of].sql != item.sql:
                    raise _differs(item)
            self._added = _sorted(item for of, item in after.items() if of not in before)
            self._removed = _sorted(item for of, item in before.items() if of not in after)
            self._check_virtual(connection)
            tables = sorted(tables_of(connection, "main"))
            for item in self._added:
                if item.type == "table":  # empty there: then all of its rows are new
                    _make_in_other(connection, item)
            self._columns = {each: columns_of(connection, "main", each) for each in tables}
            self._changeset = changeset_of(connection, tables)
            self._rows = dict(self._whole_rows(connection))

    def _check_virtual(self, connection: apsw.Connection) -> None:
        shadows = shadows_of(connection, "main")
        common = shadows & shadows_of(connection, "other")
        if shadows != common or changeset_of(connection, sorted(common)):
            raise ConflictError(
                "The branch changed a virtual table, which cannot be merged.",
                code="merge_unsupported",
            )

    def _whole_rows(self, connection: apsw.Connection) -> Any:
        """The rows that were updated: the parent may have deleted them."""
        for each in apsw.Changeset.iter(self._changeset):
            if each.op == "UPDATE":
                columns = self._columns[each.name]
                key = _key(columns, each)
                keys = [quoted(name) for name, place in columns if place] or ["rowid"]
                shown = ", ".join(quoted(name) for name, _ in columns)
                where = " AND ".join(f"{name} = ?" for name in keys)
                row = connection.execute(
                    f"SELECT {shown} FROM {quoted(each.name)} WHERE {where}", key
                ).fetchall()
                yield (each.name, key), row[0]

    # --- the parent ---------------------------------------------------------------------------

    def apply(self, db: Database) -> MergeOutcome:
        """In one commit, or not at all.

        Raises:
            ConflictError: ``merge_schema_differs``.
            DosqlError: as any write.
        """
        db.set_deadline(None)  # it is as long as what the branch changed
        outcome = MergeOutcome()
        if not (self._changeset or self._added or self._removed):
            outcome.merged = not self._dry_run
            return outcome
        try:
            with db.transaction():
                before = db.state
                self._apply(db, outcome)
                if self._dry_run or (outcome.conflicts and self._is_refused(outcome)):
                    raise _Undo
                outcome.wrote = db.state != before
        except _Undo:
            return outcome
        outcome.merged = True
        return outcome

    def _is_refused(self, outcome: MergeOutcome) -> bool:
        if self._policy == "abort" or any(
            each.reason == "foreign_key" for each in outcome.conflicts
        ):
            return True
        return self._policy == "theirs" and any(
            each.reason == "constraint" for each in outcome.conflicts
        )

    def _apply(self, db: Database, outcome: MergeOutcome) -> None:
        present = {
            (str(kind), str(name)): str(sql)
            for kind, name, sql in db.internal_query(
                "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
            )
        }
        later: list[Item] = []
        for item in self._added:
            there = present.get((item.type, item.name))
            if there is not None and there != item.sql:
                raise _differs(item)
            if there is None and item.type == "table":
                db.run(item.sql)
            elif there is None:
                later.append(item)
        self._apply_rows(db, outcome)
        for item in reversed(self._removed):
            there = present.get((item.type, item.name))
            if there is not None and there != item.sql:
                raise _differs(item)
            if there is not None:
                db.run(f"DROP {item.type.upper()} IF EXISTS {quoted(item.name)}")
        for item in later:
            db.run(item.sql)

    def _apply_rows(self, db: Database, outcome: MergeOutcome) -> None:
        if not self._changeset:
            return
        for table in {each.name for each in apsw.Changeset.iter(self._changeset)}:
            columns = self._columns[table]
            here = [
                (str(row[1]), int(str(row[5])))
                for row in db.internal_query(f"PRAGMA table_xinfo({quoted(table)})")
                if row[6] == 0
            ]
            if here != columns:
                raise _differs(Item("table", table, table, ""))
        revived: list[tuple[str, tuple[Any, ...]]] = []

        def on_conflict(reason: int, change: apsw.TableChange) -> int:
            return self._settle(reason, change, outcome, revived)

        for each in apsw.Changeset.iter(self._changeset):
            _count(outcome, each.op, 1)
        apply_changeset(db, self._changeset, on_conflict)
        for table, key in revived:
            columns = self._columns[table]
            names = [quoted(name) for name, _ in columns]
            row = self._rows[table, key]
            if not any(place for _, place in columns):
                names, row = ["rowid", *names], (*key, *row)
            marks = ", ".join("?" * len(row))
            db.run(
                f"INSERT OR REPLACE INTO {quoted(table)} ({', '.join(names)}) VALUES ({marks})", row
            )

    def _settle(
        self,
        reason: int,
        change: apsw.TableChange,
        outcome: MergeOutcome,
        revived: list[tuple[str, tuple[Any, ...]]],
    ) -> int:
        """What to do about a change that does not fit."""
        if reason == apsw.SQLITE_CHANGESET_FOREIGN_KEY:
            self._note(outcome, MergeConflict("", "changed", {}, "foreign_key", None, None))
            return apsw.SQLITE_CHANGESET_OMIT
        if _is_done(reason, change):
            _count(outcome, change.op, -1)
            return apsw.SQLITE_CHANGESET_OMIT
        columns = self._columns[change.name]
        key = _key(columns, change)
        self._note(outcome, self._described(reason, change, columns, key))
        if self._policy == "theirs" and reason in (
            apsw.SQLITE_CHANGESET_DATA,
            apsw.SQLITE_CHANGESET_CONFLICT,
        ):
            return apsw.SQLITE_CHANGESET_REPLACE
        if self._policy == "theirs" and reason == apsw.SQLITE_CHANGESET_NOTFOUND:
            revived.append((change.name, key))
        else:
            _count(outcome, change.op, -1)
        return apsw.SQLITE_CHANGESET_OMIT

    def _note(self, outcome: MergeOutcome, conflict: MergeConflict) -> None:
        outcome.conflict_count += 1
        if len(outcome.conflicts) < _CONFLICTS_MAX or conflict.reason in (
            "constraint",
            "foreign_key",
        ):
            outcome.conflicts.append(conflict)

    def _described(
        self,
        reason: int,
        change: apsw.TableChange,
        columns: list[tuple[str, int]],
        key: tuple[Any, ...],
    ) -> MergeConflict:
        names = [name for name, _ in columns]
        theirs: tuple[Any, ...] | None = None
        if change.op == "UPDATE":
            theirs = self._rows.get((change.name, key))
        elif change.op == "INSERT":
            assert change.new is not None
            theirs = change.new[-len(names) :]
        ours: tuple[Any, ...] | None = None
        if reason in (apsw.SQLITE_CHANGESET_DATA, apsw.SQLITE_CHANGESET_CONFLICT):
            assert change.conflict is not None
            ours = change.conflict[-len(names) :]
        return MergeConflict(
            table=change.name,
            change=CHANGES[change.op],
            key=named_key(columns, list(key)),
            reason=_REASONS[reason],
            parent=None if ours is None else encoded(names, ours),
            branch=None if theirs is None else encoded(names, theirs),
        )


def _is_done(reason: int, change: apsw.TableChange) -> bool:
    """Whether the parent has the change already."""
    if change.op == "DELETE":
        return reason == apsw.SQLITE_CHANGESET_NOTFOUND
    if reason not in (apsw.SQLITE_CHANGESET_DATA, apsw.SQLITE_CHANGESET_CONFLICT):
        return False
    assert change.new is not None and change.conflict is not None
    return all(
        new is apsw.no_change or (type(new), new) == (type(there), there)
        for new, there in zip(change.new, change.conflict, strict=True)
    )


def _key(columns: list[tuple[str, int]], change: apsw.TableChange) -> tuple[Any, ...]:
    image = change.new if change.old is None else change.old
    assert image is not None
    return tuple(
        [value for value, place in zip(image, places(columns, image), strict=True) if place]
    )


def _count(outcome: MergeOutcome, op: str, by: int) -> None:
    name = CHANGES[op]
    setattr(outcome, name, getattr(outcome, name) + by)


def _sorted(items: Any) -> list[Item]:
    return sorted(items, key=lambda each: (_ORDER.get(each.type, 9), each.name))


def _make_in_other(connection: apsw.Connection, item: Item) -> None:
    """Make the table in the attached file: the schema's text names none, so it goes there by way
    of a connection of its own."""
    path = connection.db_filename("other")
    other = apsw.Connection(path)
    try:
        other.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        other.execute(item.sql)
    finally:
        other.close()


def _differs(item: Item) -> ConflictError:
    return ConflictError(
        f"The {item.type} {item.name!r} is not the same on both sides: change it in the one as in "
        "the other first.",
        code="merge_schema_differs",
    )
