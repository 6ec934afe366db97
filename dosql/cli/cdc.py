"""``dosql cdc``: the changes of a tenant's rows."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dosql.cli.options import URL_DEFAULT, Token, Url, command_group, connect

app = command_group("Change data capture: follow the rows of a tenant.")


@app.callback()
def cdc() -> None:
    """Change data capture: follow the rows of a tenant."""


@app.command("tail")
def tail(
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Name of the tenant.")],
    after: Annotated[
        int | None,
        typer.Option(min=0, help="Number of the last change that is known; 0: all there is."),
    ] = None,
    tables: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only changes of these tables.")
    ] = None,
    operations: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Of insert, update, delete, schema."),
    ] = None,
    slot: Annotated[
        str | None, typer.Option(help="Begin behind what this slot acknowledged.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for more, or end.")
    ] = True,
    url: Url = URL_DEFAULT,
    token: Token = None,
) -> None:
    """Print changes as they become durable, one JSON object a line. Ends with Ctrl-C."""
    from dosql.client.changes import event_to_json

    with connect(url, token) as client:
        events = client.tenant(tenant).changes(
            after=after,
            tables=_split(tables),
            operations=_split(operations),
            slot=slot,
            follow=follow,
        )
        try:
            for event in events:
                sys.stdout.write(event_to_json(event).decode() + "\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit from None


def _split(names: str | None) -> list[str] | None:
    return None if names is None else names.split(",")
