"""``dosql shell``: SQL and dot commands against one tenant."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dosql.cli.formats import Mode
from dosql.cli.options import URL_DEFAULT, TenantName, Token, Url, connect


def shell(
    tenant: TenantName,
    mode: Annotated[Mode, typer.Option(help="How rows are printed at first.")] = "table",
    url: Url = URL_DEFAULT,
    token: Token = None,
) -> None:
    """Type SQL, or pipe it in. `.help` lists the dot commands.

    Input that is not from a terminal stops at the first error, with exit code 1.
    """
    from dosql.cli.shell.session import Session

    with connect(url, token) as client:
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        session = Session(
            client.tenant(tenant),
            out=sys.stdout,
            err=sys.stderr,
            mode=mode,
            interactive=interactive,
        )
        if interactive:
            from dosql.cli.shell.terminal import run_terminal

            succeeded = run_terminal(session)
        else:
            from dosql.cli.shell.script import run_script

            succeeded = run_script(session, sys.stdin, "stdin")
            session.close()
    raise typer.Exit(0 if succeeded else 1)
