"""Branches: made, compared with their parent, and merged into it."""

from __future__ import annotations

from typing import Any, Literal

from dosql.wire.body import Body


class CreateBranch(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/branches``. ``name``: a tenant to make; ``at``: RFC
    3339 or a bookmark of the parent, none: now."""

    name: str
    at: str | None = None
    protected: bool = False


class BranchInfo(Body, omit_defaults=False):
    """A tenant whose history began at another's. Times are RFC 3339 in UTC."""

    name: str
    parent: str
    bookmark: str
    """Of the parent: where the branch begins."""
    created_at: str
    protected: bool
    """It can be neither deleted nor replaced, and nothing can be merged into it."""


class BranchList(Body, omit_defaults=False):
    """Branches of one tenant, in name order."""

    branches: list[BranchInfo]


class Protection(Body, forbid_unknown_fields=True, omit_defaults=False):
    """Body and reply of ``PUT /admin/tenants/{name}/protection``, for branches and all others."""

    protected: bool


class SchemaDifference(Body, omit_defaults=False):
    """A table, index, trigger or view that is not the same; the SQL on either side, or null."""

    type: str
    name: str
    change: Literal["added", "removed", "changed"]
    """From the parent to the branch."""
    parent: str | None
    branch: str | None


class RowDifference(Body, omit_defaults=False):
    """A row that is not the same. Values as in the rows of a query."""

    change: Literal["added", "removed", "changed"]
    key: dict[str, Any]
    """The primary key; ``rowid`` where the table has none."""
    parent: dict[str, Any] | None
    branch: dict[str, Any] | None


class TableDifference(Body, omit_defaults=False):
    """Rows of one table, by primary key."""

    table: str
    added: int
    removed: int
    changed: int
    rows: list[RowDifference]
    """Up to the limit that was asked for; the counts are exact."""
    truncated: bool
    compared: bool = True
    """False: the table's columns are not the same on both sides, so its rows were not compared."""


class BranchDiff(Body, omit_defaults=False):
    """Reply of ``GET /admin/tenants/{name}/branches/{branch}/diff``: the branch as it is now,
    against its parent as it is now (``against=parent``) or where it began (``against=start``)."""

    parent: str
    branch: str
    parent_bookmark: str
    branch_bookmark: str
    against: Literal["parent", "start"]
    schema: list[SchemaDifference]
    tables: list[TableDifference]
    """Those that differ."""


ConflictPolicy = Literal["abort", "ours", "theirs"]
"""What becomes of a row that both sides changed: nothing is merged; the parent's stays; the
branch's wins."""


class MergeRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/branches/{branch}/merge``."""

    conflicts: ConflictPolicy = "abort"
    dry_run: bool = False


class MergeConflict(Body, omit_defaults=False):
    """A change of the branch that did not fit the parent."""

    table: str
    change: Literal["added", "removed", "changed"]
    """What the branch did to the row."""
    key: dict[str, Any]
    reason: Literal["changed", "missing", "exists", "constraint", "foreign_key"]
    """What the parent did: changed the row too, has none, has another of the same key; or one of
    its constraints stands in the way."""
    parent: dict[str, Any] | None
    branch: dict[str, Any] | None


class MergeReply(Body, omit_defaults=False):
    """What a merge did, or would do."""

    merged: bool
    """False: a dry run, or there were conflicts to abort for; then nothing was changed."""
    bookmark: str
    """Of the parent, behind the merge."""
    undo_bookmark: str | None
    """Of the parent, in front of it."""
    added: int
    removed: int
    changed: int
    conflicts: list[MergeConflict]
    """Up to 1,000 of them."""
    conflict_count: int
