"""``dosql query``: one statement."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dosql.cli.execution import execute
from dosql.cli.formats import Mode, run_result_text, write_rows
from dosql.cli.options import POINT, URL_DEFAULT, Json, TenantName, Token, Url, connect
from dosql.cli.output import complain, print_json
from dosql.cli.parameters import parse_params
from dosql.wire.values import Params

if TYPE_CHECKING:
    from dosql.client import RunResult


def _params(texts: list[str]) -> Params | None:
    try:
        return parse_params(texts)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="-p") from None


def query(
    tenant: TenantName,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One statement.")],
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="VALUE",
            help="A parameter, in order, or :name=VALUE. 42 and 1.5 are numbers, null is NULL, "
            "x'00ff' is a blob, all else is text; '\"42\"' is the text 42.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="POINT", help=f"Read the past. {POINT}", show_default="now"),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="How rows are printed.")] = "table",
    url: Url = URL_DEFAULT,
    token: Token = None,
    json: Json = False,
) -> None:
    """Run one statement and print its rows, or what it changed."""
    from dosql.client import Rows

    params = _params(param or [])
    with connect(url, token) as client:
        database = client.tenant(tenant)
        if at is None:
            result = execute(database, sql, params)
        else:
            result = database.at(at).query_rows(sql, params)
    if isinstance(result, Rows):
        write_rows(result, "json" if json else mode, sys.stdout)
    else:
        _print_run_result(result, json=json)


def _print_run_result(result: RunResult, *, json: bool) -> None:
    if json:
        print_json({"changes": result.changes, "lastInsertRowid": result.last_insert_rowid})
    else:
        complain(run_result_text(result))
