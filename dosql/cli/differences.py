"""Differences and conflicts between a branch and its parent, as text for people."""

from __future__ import annotations

from typing import Any

from dosql.cli.formats import literal
from dosql.cli.output import printable
from dosql.wire.branches import BranchDiff, MergeReply, SchemaDifference, TableDifference

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def print_diff(diff: BranchDiff) -> None:
    """Schema first, then the rows of each table: what the branch added, removed and changed."""
    if not diff.schema and not diff.tables:
        print("no differences")
    for entry in diff.schema:
        print(_schema_text(entry))
    for table in diff.tables:
        _print_table(table)


def _schema_text(entry: SchemaDifference) -> str:
    head = f"{_SIGNS[entry.change]} {entry.type} {printable(entry.name)}"
    if entry.change != "changed":
        return head
    return f"{head}: {printable(entry.parent or '-')} -> {printable(entry.branch or '-')}"


def _print_table(table: TableDifference) -> None:
    name = printable(table.table)
    if not table.compared:
        print(f"{name}: other columns, rows are not compared")
        return
    print(f"{name}: {table.added} added, {table.changed} changed, {table.removed} removed")
    for row in table.rows:
        print(f"  {_SIGNS[row.change]} {_row_text(row.change, row.key, row.parent, row.branch)}")
    if table.truncated:
        print("  ...")


def print_conflicts(reply: MergeReply) -> None:
    """A line for each conflict that is told."""
    for each in reply.conflicts:
        text = _row_text(each.change, each.key, each.parent, each.branch)
        print(f"conflict in {printable(each.table)}, {each.reason}: {_SIGNS[each.change]} {text}")
    if reply.conflict_count > len(reply.conflicts):
        print("...")


def _row_text(
    change: str, key: dict[str, Any], parent: dict[str, Any] | None, branch: dict[str, Any] | None
) -> str:
    """A row that is on one side only, or the columns of one that is not the same on both."""
    if change != "changed" or parent is None or branch is None:
        return _values(branch or parent or key)
    changed = [
        f"{printable(name)} {_literal(parent.get(name))} -> {_literal(value)}"
        for name, value in branch.items()
        if not _same(parent.get(name), value)
    ]
    return f"{_values(key)}: {', '.join(changed)}"


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _values(row: dict[str, Any]) -> str:
    return ", ".join(f"{printable(name)} {_literal(value)}" for name, value in row.items())


def _literal(value: Any) -> str:
    return printable(literal(value))
