"""``dosql migrate``: where the tenants' schemas stand, and bringing them up to date."""

from __future__ import annotations

from typing import Annotated

import typer

from dosql.cli.options import URL_DEFAULT, Json, Token, Url, command_group, connect
from dosql.cli.output import complain, print_columns, print_json, printable
from dosql.wire.migrations import MigrationReport

app = command_group("Schema migrations of the tenants.")


@app.command("status")
def status(url: Url = URL_DEFAULT, token: Token = None, json: Json = False) -> None:
    """Print each tenant's schema version and what is pending."""
    with connect(url, token) as client:
        report = client.admin.migrations.status()
    _print(report, json=json)


@app.command("run")
def run(
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Only this one.", show_default="all")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be applied.")
    ] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Apply pending migrations; exits with 1 if one fails for any tenant."""
    with connect(url, token) as client:
        report = client.admin.migrations.run(tenant, dry_run=dry_run)
    _print(report, json=json)


def _print(report: MigrationReport, *, json: bool) -> None:
    if json:
        print_json(report)
    else:
        print_columns(
            ("TENANT", "VERSION", "PENDING"),
            [
                (state.tenant, str(state.version), ", ".join(state.pending) or "-")
                for state in report.tenants
            ],
        )
    failed = [state for state in report.tenants if state.error is not None]
    for state in failed:
        complain(f"tenant {state.tenant}: {printable(state.error or '')}")
    if failed:
        raise typer.Exit(1)
