"""``dosql snapshot``: whole databases in the bucket, and whether it holds what it should."""

from __future__ import annotations

from typing import Annotated

import typer

from dosql.cli.options import URL_DEFAULT, Json, Of, Token, Url, command_group, connect
from dosql.cli.output import complain, print_columns, print_json, printable, size_text
from dosql.cli.progress import waiting
from dosql.wire.snapshots import SnapshotInfo, SnapshotList, VerifyReply

app = command_group("Snapshots in the bucket: make, list, verify, prune.")


@app.command("create")
def create(tenant: Of, url: Url = URL_DEFAULT, token: Token = None, json: Json = False) -> None:
    """Put a tenant's database as it is now into the bucket, as one file."""
    with connect(url, token) as client, waiting(f"snapshot {tenant}"):
        info = client.admin.tenants.snapshots.create(tenant)
    if json:
        print_json(info)
    else:
        _print([info])


@app.command("ls")
def ls(tenant: Of, url: Url = URL_DEFAULT, token: Token = None, json: Json = False) -> None:
    """List the snapshots of a tenant, the oldest first."""
    with connect(url, token) as client:
        found = client.admin.tenants.snapshots.list(tenant)
    if json:
        print_json(SnapshotList(found))
    else:
        _print(found)


@app.command("rm")
def rm(
    tenant: Of,
    bookmark: Annotated[str, typer.Argument(metavar="BOOKMARK", help="Of the snapshot.")],
    url: Url = URL_DEFAULT,
    token: Token = None,
) -> None:
    """Remove a snapshot, unless its state could not be restored without it."""
    with connect(url, token) as client:
        client.admin.tenants.snapshots.delete(tenant, bookmark)
    complain(f"removed snapshot {bookmark}")


@app.command("verify")
def verify(
    tenant: Of,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="Read all files, not only those of the newest state."),
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make damaged files anew out of others.")
    ] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Restore the newest state from the bucket and check it; exits with 1 if there is damage."""
    with connect(url, token) as client, waiting(f"verify {tenant}"):
        report = client.admin.tenants.snapshots.verify(tenant, everything=everything, repair=repair)
    if json:
        print_json(report)
    else:
        _print_report(report)
    if not report.sound:
        raise typer.Exit(1)


@app.command("prune")
def prune(
    tenant: Of,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be removed.")
    ] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Remove now what the server's retention lets go of."""
    with connect(url, token) as client, waiting(f"prune {tenant}"):
        done = client.admin.tenants.snapshots.prune(tenant, dry_run=dry_run)
    if json:
        print_json(done)
        return
    verb = "would remove" if done.dry_run else "removed"
    plural = "" if done.files == 1 else "s"
    what = f"{done.files} file{plural}, {done.snapshots} of them snapshots"
    complain(f"{verb} {what}, {size_text(done.size_bytes)}")


def _print(snapshots: list[SnapshotInfo]) -> None:
    lines = [(each.bookmark, each.created_at, size_text(each.size_bytes)) for each in snapshots]
    print_columns(("BOOKMARK", "STATE OF", "SIZE"), lines)


def _print_report(report: VerifyReply) -> None:
    print_columns(
        ("SOUND", "yes" if report.sound else "no"),
        [
            ("newest state", report.bookmark or "-"),
            ("committed", report.at or "-"),
            ("size", size_text(report.size_bytes)),
            ("files read", f"{report.files}, {size_text(report.bytes_read)}"),
        ],
    )
    for each in report.damaged:
        state = "repaired" if each.repaired else "damaged"
        complain(f"{state}: level {each.level}, {each.name}: {printable(each.reason)}")
    if report.failure is not None:
        complain(printable(report.failure))
