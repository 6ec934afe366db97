"""Tenants that begin as another one was."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from dosql.host.names import check_tenant_name
from dosql.wire.branches import (
    BranchDiff,
    BranchInfo,
    BranchList,
    CreateBranch,
    MergeReply,
    MergeRequest,
    Protection,
)
from server.components import Components

_ROWS_MAX = 1_000


@post("/tenants/{name:str}/branches", tags=["Branches"])
async def create_branch(
    name: FromPath[str], data: JSONBody[CreateBranch], components: NamedDependency[Components]
) -> BranchInfo:
    """Make a tenant that begins as this one is, or was at `at`. It takes no room until it is
    written."""
    return await components.host.past.branches.create(
        check_tenant_name(name), data.name, data.at, protected=data.protected
    )


@get("/tenants/{name:str}/branches", tags=["Branches"])
async def list_branches(name: FromPath[str], components: NamedDependency[Components]) -> BranchList:
    """The branches of this tenant, in name order."""
    return BranchList(components.host.past.branches.list(check_tenant_name(name)))


@get("/tenants/{name:str}/branches/{branch:str}/diff", tags=["Branches"])
async def diff_branch(
    name: FromPath[str],
    branch: FromPath[str],
    components: NamedDependency[Components],
    against: Annotated[
        Literal["parent", "start"],
        QueryParameter(description="The parent as it is now, or where the branch began."),
    ] = "parent",
    limit: Annotated[
        int, QueryParameter(ge=0, le=_ROWS_MAX, description="Rows told per table.")
    ] = 100,
) -> BranchDiff:
    """What is not the same: the schema, and rows by primary key."""
    return await components.host.past.branches.diff(
        check_tenant_name(name), check_tenant_name(branch), against=against, rows_max=limit
    )


@post("/tenants/{name:str}/branches/{branch:str}/merge", tags=["Branches"], status_code=200)
async def merge_branch(
    name: FromPath[str],
    branch: FromPath[str],
    data: JSONBody[MergeRequest],
    components: NamedDependency[Components],
) -> MergeReply:
    """Apply to this tenant, in one commit, what changed in the branch since it began.

    `conflicts` says what becomes of rows that both changed: `abort` merges nothing and tells
    them, `ours` keeps this tenant's, `theirs` takes the branch's.
    """
    return await components.host.past.branches.merge(
        check_tenant_name(name),
        check_tenant_name(branch),
        conflicts=data.conflicts,
        dry_run=data.dry_run,
    )


@put("/tenants/{name:str}/protection", tags=["Branches"], status_code=200)
async def protect_tenant(
    name: FromPath[str], data: JSONBody[Protection], components: NamedDependency[Components]
) -> Protection:
    """Say whether the tenant may be deleted, replaced by an import, and merged into."""
    await components.host.past.branches.protect(check_tenant_name(name), data.protected)
    return data


BRANCH_ROUTES = [create_branch, list_branches, diff_branch, merge_branch, protect_tenant]
