"""``dosql branch``: tenants that begin as another one is, or was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import typer

from dosql.cli.differences import print_conflicts, print_diff
from dosql.cli.options import (
    POINT,
    URL_DEFAULT,
    Json,
    TenantName,
    Token,
    Url,
    Yes,
    command_group,
    confirm,
    connect,
)
from dosql.cli.output import complain, print_columns, print_json
from dosql.cli.progress import waiting
from dosql.errors import NotFoundError
from dosql.wire.branches import BranchInfo, BranchList, ConflictPolicy, MergeReply, Protection
from dosql.wire.values import encode_rows

app = command_group("Branches of tenants: create, list, compare, merge, remove.")
BranchName = Annotated[str, typer.Argument(metavar="BRANCH", help="Name of the branch.")]


@app.command("create")
def create(
    tenant: TenantName,
    branch: Annotated[str, typer.Argument(metavar="BRANCH", help="The tenant to make.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="POINT", help=POINT, show_default="now")
    ] = None,
    protected: Annotated[
        bool, typer.Option("--protected", help="It can be neither deleted nor merged into.")
    ] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Make a tenant that begins as another one is, or was."""
    with connect(url, token) as client:
        made = client.admin.tenants.branches.create(tenant, branch, at=at, protected=protected)
    if json:
        print_json(made)
    else:
        _print([made])


@app.command("ls")
def ls(tenant: TenantName, url: Url = URL_DEFAULT, token: Token = None, json: Json = False) -> None:
    """List the branches of a tenant in name order."""
    with connect(url, token) as client:
        found = client.admin.tenants.branches.list(tenant)
    if json:
        print_json(BranchList(found))
    else:
        _print(found)


@app.command("diff")
def diff(
    tenant: TenantName,
    branch: BranchName,
    against: Annotated[
        Literal["parent", "start"],
        typer.Option(help="The tenant as it is now, or where the branch began."),
    ] = "parent",
    limit: Annotated[int, typer.Option(min=0, max=1000, help="Rows shown per table.")] = 100,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Print how a branch differs: its schema, and its rows by primary key."""
    with connect(url, token) as client, waiting(f"compare {branch}"):
        found = client.admin.tenants.branches.diff(tenant, branch, against=against, limit=limit)
    if json:
        print_json(_as_on_the_wire(found))
    else:
        print_diff(found)


@app.command("merge")
def merge(
    tenant: TenantName,
    branch: BranchName,
    conflicts: Annotated[
        ConflictPolicy,
        typer.Option(
            help="Of rows that both changed: merge nothing, keep the tenant's (ours), or take "
            "the branch's (theirs)."
        ),
    ] = "abort",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be merged.")
    ] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Apply to a tenant what changed in its branch; exits with 1 if conflicts kept it from that."""
    with connect(url, token) as client, waiting(f"merge {branch}"):
        done = client.admin.tenants.branches.merge(
            tenant, branch, conflicts=conflicts, dry_run=dry_run
        )
    if json:
        print_json(_as_on_the_wire(done))
    else:
        print_conflicts(done)
        verb = "merged" if done.merged else "to be merged" if dry_run else "not merged"
        complain(f"{verb}: {_counts(done)}")
        if done.undo_bookmark is not None:
            complain(f"to take it back: dosql restore {tenant} --at {done.undo_bookmark}")
    if not done.merged and not dry_run:
        raise typer.Exit(1)


@app.command("rm")
def rm(
    tenant: TenantName,
    branch: BranchName,
    url: Url = URL_DEFAULT,
    token: Token = None,
    yes: Yes = False,
) -> None:
    """Delete a branch and its database."""
    with connect(url, token) as client:
        if branch not in {each.name for each in client.admin.tenants.branches.list(tenant)}:
            raise NotFoundError(f"{tenant} has no branch {branch}.", code="branch_not_found")
        confirm(f"Delete branch {branch} and all its data?", yes=yes)
        client.admin.tenants.delete(branch)
    complain(f"deleted branch {branch}")


@app.command("protect")
def protect(
    tenant: TenantName,
    off: Annotated[bool, typer.Option("--off", help="Allow it again.")] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Keep a tenant, branch or not, from being deleted, replaced and merged into."""
    with connect(url, token) as client:
        client.admin.tenants.protect(tenant, not off)
    if json:
        print_json(Protection(not off))
    else:
        complain(f"tenant {tenant} is {'no longer ' if off else ''}protected")


def _counts(done: MergeReply) -> str:
    plural = "" if done.conflict_count == 1 else "s"
    return (
        f"{done.added} added, {done.changed} changed, {done.removed} removed, "
        f"{done.conflict_count} conflict{plural}"
    )


def _print(branches: Sequence[BranchInfo]) -> None:
    print_columns(
        ("NAME", "PARENT", "BEGAN AT", "CREATED", "PROTECTED"),
        [
            (
                each.name,
                each.parent,
                each.bookmark,
                each.created_at,
                "yes" if each.protected else "",
            )
            for each in branches
        ],
    )


def _as_on_the_wire(body: msgspec.Struct) -> object:
    """The client made bytes and infinities of tagged values; JSON has neither."""
    return _tagged(msgspec.to_builtins(body, builtin_types=(bytes,)))


def _tagged(value: object) -> object:
    if isinstance(value, dict):
        return {name: _tagged(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_tagged(each) for each in value]
    if isinstance(value, (bytes, float)):
        return encode_rows([(value,)])[0][0]
    return value
