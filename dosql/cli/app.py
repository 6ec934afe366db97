"""All commands in one tree, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from dosql import __version__
from dosql.cli import (
    branches,
    cdc,
    migrations,
    query,
    restore,
    serve,
    shell_command,
    snapshots,
    tenants,
    tokens,
)
from dosql.cli.output import print_error
from dosql.errors import DosqlError

# Without rich: its import alone would double the start of every command.
app = typer.Typer(
    name="dosql",
    help="One SQLite database per tenant, over HTTP.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.add_typer(tenants.app, name="tenant")
app.add_typer(tokens.app, name="token")
app.add_typer(migrations.app, name="migrate")
app.add_typer(cdc.app, name="cdc")
app.add_typer(snapshots.app, name="snapshot")
app.add_typer(branches.app, name="branch")
app.command("restore")(restore.restore)
app.command("query")(query.query)
app.command("shell")(shell_command.shell)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dosql {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """One SQLite database per tenant, over HTTP."""


def run() -> NoReturn:
    """Run the command line of this process."""
    try:
        app()
    except DosqlError as exc:
        print_error(exc)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as exc:
        # Files that the user named; the client's network errors are DosqlErrors.
        reason = exc.strerror or str(exc)
        print(
            f"dosql: {exc.filename}: {reason}" if exc.filename else f"dosql: {reason}",
            file=sys.stderr,
        )
    sys.exit(1)
