"""``dosql tenant``: list, create, remove, inspect, export and import tenants."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from msgspec import UNSET

from dosql.cli.options import (
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
from dosql.cli.output import complain, print_columns, print_json, size_text
from dosql.cli.progress import transfer
from dosql.errors import NotFoundError
from dosql.wire.tenants import TenantInfo

app = command_group("Tenants: list, create, remove, export, import.")
_LINES_AT_ONCE = 500
"""Lines between two alignments of the list; a first page appears while the rest is fetched."""


@app.command("ls")
def ls(
    prefix: Annotated[str, typer.Option(help="Only names that start so.")] = "",
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """List the tenants in name order."""
    with connect(url, token) as client:
        tenants = client.admin.tenants.list(prefix)
        if json:
            print_json({"tenants": list(tenants)})
            return
        while lines := [_cells(info) for info in islice(tenants, _LINES_AT_ONCE)]:
            print_columns(("NAME", "STATE", "SIZE", "LAST USED"), lines)


def _cells(info: TenantInfo) -> tuple[str, ...]:
    return info.name, info.state, size_text(info.size_bytes), info.last_used_at


@app.command("create")
def create(
    name: TenantName, url: Url = URL_DEFAULT, token: Token = None, json: Json = False
) -> None:
    """Create a tenant."""
    with connect(url, token) as client:
        _print(client.admin.tenants.create(name), json=json)


@app.command("info")
def info(name: TenantName, url: Url = URL_DEFAULT, token: Token = None, json: Json = False) -> None:
    """Print what is known of a tenant."""
    with connect(url, token) as client:
        _print(client.admin.tenants.get(name), json=json)


@app.command("rm")
def rm(name: TenantName, url: Url = URL_DEFAULT, token: Token = None, yes: Yes = False) -> None:
    """Delete a tenant and its database."""
    with connect(url, token) as client:
        client.admin.tenants.get(name)  # nobody should be asked about a tenant that is not there
        confirm(f"Delete tenant {name} and all its data?", yes=yes)
        client.admin.tenants.delete(name)
    complain(f"deleted tenant {name}")


@app.command("export")
def export(
    name: TenantName,
    file: Annotated[Path, typer.Argument(help="The .sqlite file to write.", dir_okay=False)],
    url: Url = URL_DEFAULT,
    token: Token = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Write a consistent copy of a tenant's database to a file."""
    if file.exists():
        confirm(f"Overwrite {file}?", yes=yes)
    with connect(url, token) as client, transfer(f"export {name}") as progress:
        size_bytes = client.admin.tenants.export(name, file, progress)
    if json:
        print_json({"name": name, "file": str(file), "sizeBytes": size_bytes})
    else:
        complain(f"wrote {file}, {size_text(size_bytes)}")


@app.command("import")
def import_(
    name: TenantName,
    file: Annotated[
        Path, typer.Argument(help="A SQLite database file.", exists=True, dir_okay=False)
    ],
    url: Url = URL_DEFAULT,
    token: Token = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make a file the database of a tenant; creates the tenant, or replaces what it has."""
    with connect(url, token) as client:
        try:
            client.admin.tenants.get(name)
        except NotFoundError:
            pass
        else:
            confirm(f"Replace the database of tenant {name}?", yes=yes)
        with transfer(f"import {name}") as progress:
            imported = client.admin.tenants.import_(name, file, progress)
    _print(imported, json=json)


def _print(info: TenantInfo, *, json: bool) -> None:
    if json:
        print_json(info)
        return
    facts = [
        ("id", info.id),
        ("state", info.state),
        ("size", size_text(info.size_bytes)),
        ("created", info.created_at),
        ("last used", info.last_used_at),
        ("txid", str(info.txid)),
    ]
    if info.replicated_txid is not UNSET and info.replica_url is not UNSET:
        facts.append(("in the bucket", f"{info.replicated_txid} of {info.txid}"))
        facts.append(("replica", info.replica_url))
    print_columns(("NAME", info.name), facts)
