"""``dosql restore``: a tenant as it was."""

from __future__ import annotations

from typing import Annotated

import typer

from dosql.cli.options import (
    POINT,
    URL_DEFAULT,
    Json,
    TenantName,
    Token,
    Url,
    Yes,
    confirm,
    connect,
)
from dosql.cli.output import complain, print_columns, print_json, size_text
from dosql.cli.progress import transfer
from dosql.wire.restores import RestoreReply


def restore(
    tenant: TenantName,
    at: Annotated[str, typer.Option("--at", metavar="POINT", help=POINT)],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="NAME",
            help="Make a new tenant of it, and leave this one alone.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build the state and check it, and change nothing.")
    ] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take a tenant back to a point in time, or make a new tenant of its past."""
    with connect(url, token) as client:
        if to is None and not dry_run:
            client.admin.tenants.get(tenant)  # nobody should be asked about what is not there
            confirm(f"Take tenant {tenant} back to {at}?", yes=yes)
        with transfer(f"restore {tenant}") as progress:
            done = client.admin.tenants.restore(
                tenant, at=at, to=to, dry_run=dry_run, progress=progress
            )
    if json:
        print_json(done)
    else:
        _print(done)


def _print(done: RestoreReply) -> None:
    print_columns(
        ("TENANT", done.tenant),
        [
            ("state", done.bookmark),
            ("committed", done.at),
            ("size", size_text(done.size_bytes)),
            ("files read", f"{done.files}, {size_text(done.bytes_read)}"),
        ],
    )
    if done.dry_run:
        complain("nothing was changed")
    elif done.undo_bookmark is not None:
        complain(f"to take it back: dosql restore {done.tenant} --at {done.undo_bookmark}")
