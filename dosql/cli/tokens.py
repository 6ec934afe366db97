"""``dosql token``: create, revoke and inspect tenant tokens."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from dosql.cli.durations import parse_duration
from dosql.cli.options import URL_DEFAULT, Json, Token, Url, command_group, connect
from dosql.cli.output import complain, print_columns, print_json

app = command_group("Tokens of tenants: create, revoke, inspect.")
_TOKEN = re.compile(r"dsk_([0-9a-f]{16})_.+", re.ASCII)

TokenId = Annotated[str, typer.Argument(metavar="TOKEN", help="A token, or its id.")]


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--expires") from None


@app.command("create")
def create(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose database it opens.")],
    read_only: Annotated[bool, typer.Option("--read-only", help="Allow reads only.")] = False,
    expires: Annotated[
        str | None, typer.Option("--expires", help="Lifetime, such as 45s, 30m, 12h, 7d, 2w.")
    ] = None,
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Create a token and print it: it cannot be shown again."""
    expires_in_s = _seconds(expires)
    with connect(url, token) as client:
        created = client.admin.tokens.create(
            tenant,
            access="read-only" if read_only else "read-write",
            expires_in_s=expires_in_s,
        )
    if json:
        print_json(created)
        return
    print(created.token)
    until = f"until {created.expires_at}" if created.expires_at else "until it is revoked"
    complain(f"token {created.id} opens tenant {tenant} {until}; it is not shown again")


@app.command("revoke")
def revoke(token_or_id: TokenId, url: Url = URL_DEFAULT, token: Token = None) -> None:
    """Make a token invalid, for good."""
    token_id = _id_of(token_or_id)
    with connect(url, token) as client:
        client.admin.tokens.revoke(token_id)
    complain(f"revoked token {token_id}")


@app.command("inspect")
def inspect(
    token_or_id: TokenId, url: Url = URL_DEFAULT, token: Token = None, json: Json = False
) -> None:
    """Print what a token may do."""
    with connect(url, token) as client:
        info = client.admin.tokens.get(_id_of(token_or_id))
    if json:
        print_json(info)
        return
    expires = info.expires_at or "never"
    print_columns(
        ("ID", info.id),
        [
            ("tenant", info.tenant),
            ("access", info.access),
            ("created", info.created_at),
            ("expires", f"{expires} (expired)" if info.expired else expires),
        ],
    )


def _id_of(token_or_id: str) -> str:
    """The id in a token; so that its secret part does not travel in a URL."""
    match = _TOKEN.fullmatch(token_or_id)
    return match[1] if match else token_or_id
