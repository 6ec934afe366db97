"""Options that many commands share, and the client they lead to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dosql.cli.output import complain

if TYPE_CHECKING:
    from dosql.client import Client

URL_DEFAULT = "http://127.0.0.1:8787"
DATA_DIR_DEFAULT = "./data"

Url = Annotated[str, typer.Option("--url", envvar="DOSQL_URL", help="The server.")]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar=["DOSQL_TOKEN", "DOSQL_ADMIN_TOKEN"],
        help="Without one: the admin token that `dosql serve` left in its data directory "
        f"($DOSQL_DATA_DIR, or {DATA_DIR_DEFAULT}).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="Name of the tenant.")]

Of = Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Name of the tenant.")]
POINT = "A bookmark, or a time such as 2026-01-31T12:00:00Z."


def command_group(help_text: str) -> typer.Typer:
    """Commands below a common word: ``dosql tenant ls``."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None)


def connect(url: str, token: str | None) -> Client:
    """A client for the server; no request is made yet."""
    from dosql.client import Client

    return Client(url, token=token or _token_of_data_dir())


def _token_of_data_dir() -> str | None:
    path = Path(os.environ.get("DOSQL_DATA_DIR") or DATA_DIR_DEFAULT) / "admin-token"
    try:
        return path.read_text().strip() or None
    except OSError:
        return None  # the server's 401 says what is missing


def confirm(question: str, *, yes: bool) -> None:
    """Returns only if the user agrees; exits with 2 if there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        complain(f"{question} Nobody can be asked here: say --yes.")
        raise typer.Exit(2)
    typer.confirm(question, abort=True, err=True)
