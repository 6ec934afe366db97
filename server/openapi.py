"""The OpenAPI document: of Litestar's own handlers, and of the SQL routes, which are plain ASGI.

The SQL routes are described here by typed handlers that are never called. Everything is built when
somebody asks for the document first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Litestar, post
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Tag
from litestar.params import JSONBody

from dosql import accounts, wire
from dosql.wire.body import Body
from dosql.wire.changes import AcknowledgeChanges, ChangeSlot, ChangeSlots, CreateChangeSlot
from dosql.wire.failure import ErrorReply
from dosql.wire.restores import RestoreLine, RestoreReply
from dosql.wire.statements import RunReply, SqlRequest, TransactionOpened, TransactionRequest
from server.openapi_changes import change_paths
from server.openapi_objects import object_paths

TENANT_PATHS = ("/query", "/queryOne", "/run", "/transaction")
_BELOW_TENANT = ("/transactions", "/changes", "/auth", "/api")
"""Paths that start so exist also below `/t/{tenant}`."""
_OPEN_TAGS = {"Health"}
_OPEN_PATHS = ("/auth/signup", "/auth/login")
_TAGS = (
    "SQL",
    "Transactions",
    "Changes",
    "Auth",
    "Users",
    "Tenants",
    "Tokens",
    "Time travel",
    "Branches",
    "Objects",
)
_METHODS = ("get", "post", "put", "delete")

Json = dict[str, Any]


class QueryReply(Body, omit_defaults=False):
    """All rows of a statement."""

    rows: list[dict[str, Any]]


class QueryOneReply(Body, omit_defaults=False):
    """The first row of a statement."""

    row: dict[str, Any] | None


class TransactionReply(Body, omit_defaults=False):
    """One result for each operation: a list of rows, a row or null, or what a run did."""

    results: list[Any]


class Committed(Body, omit_defaults=False):
    """The transaction is durable."""

    committed: bool


@post("/query", tags=["SQL"], status_code=200)
async def query(data: JSONBody[SqlRequest]) -> QueryReply:
    """Run one statement that returns rows.

    `?rows=array` answers `{"columns": [...], "rows": [[...]]}`, which keeps columns of the same
    name apart; without it the last of them wins. `?int=string` gives integers beyond ±2^53 as
    text.
    """
    raise NotImplementedError


@post("/queryOne", tags=["SQL"], status_code=200)
async def query_one(data: JSONBody[SqlRequest]) -> QueryOneReply:
    """Run one statement and return its first row, or null."""
    raise NotImplementedError


@post("/run", tags=["SQL"], status_code=200)
async def run(data: JSONBody[SqlRequest]) -> RunReply:
    """Run one statement that writes; durable when it answers."""
    raise NotImplementedError


@post("/transaction", tags=["SQL"], status_code=200)
async def transaction(data: JSONBody[TransactionRequest]) -> TransactionReply:
    """Run all operations in one transaction, or none; an error has the failed one's index."""
    raise NotImplementedError


class _Bodies(Body):
    """Replies that handlers encode themselves, for the document only."""

    opened: TransactionOpened
    committed: Committed
    error: ErrorReply
    create_slot: CreateChangeSlot
    slots: ChangeSlots
    slot: ChangeSlot
    acknowledge: AcknowledgeChanges
    restored: RestoreReply
    restoring: RestoreLine


@post("/bodies", status_code=200)
async def _bodies(data: JSONBody[SqlRequest]) -> _Bodies:
    raise NotImplementedError


def build_document(handlers: Sequence[Any], version: str) -> bytes:
    """The document of these handlers and of the SQL routes, as JSON."""
    config = OpenAPIConfig(
        title="dosql",
        version=version,
        description="A SQL database of its own for every tenant, and durable objects in Python.",
        tags=[Tag(name=name) for name in _TAGS],
        use_handler_docstrings=True,
    )
    routes = [query, query_one, run, transaction, _bodies, *handlers]
    app = Litestar(
        routes,
        openapi_config=config,
        dependencies={
            "auth": Provide(lambda: None, sync_to_thread=False),
            "components": Provide(lambda: None, sync_to_thread=False),
        },
    )
    document: Json = app.openapi_schema.to_schema()
    paths: Json = document["paths"]
    del paths["/bodies"]
    _describe_transactions(paths)
    _describe_import(paths)
    _describe_restore(paths)
    paths.update(object_paths())
    paths.update(change_paths())
    for path, item in list(paths.items()):
        if path in TENANT_PATHS or path.startswith(_BELOW_TENANT):
            paths["/t/{tenant}" + path] = _below_tenant(item)
            _add_parameters(item, ["TenantHeader"])
    for path, item in paths.items():
        _complete(path, item)
    _forbid_unknown_fields(document["components"]["schemas"])
    document["components"].update(_COMPONENTS)
    return msgspec.json.encode(document)


def _forbid_unknown_fields(schemas: Json) -> None:
    """Bodies with a field that is misspelt are refused; Litestar's document does not say so."""
    for name, kind in [*vars(wire).items(), *vars(accounts).items()]:
        if name in schemas and kind.__struct_config__.forbid_unknown_fields:
            schemas[name]["additionalProperties"] = False


def _below_tenant(item: Json) -> Json:
    copied = copy.deepcopy(item)
    for operation in _operations(copied):
        operation["operationId"] = "Tenant" + operation["operationId"]
    _add_parameters(copied, ["TenantPath"])
    return copied


def _add_parameters(item: Json, names: Sequence[str]) -> None:
    for operation in _operations(item):
        parameters = operation.setdefault("parameters", [])
        parameters += [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _operations(item: Json) -> list[Json]:
    return [item[method] for method in _METHODS if method in item]


def _complete(path: str, item: Json) -> None:
    """What holds for every route: errors, the token, the parameters of SQL."""
    last = path.rpartition("/")[2]
    names: list[str] = []
    if last == "commit" or ("/" + last in TENANT_PATHS and "/transactions/" not in path):
        names.append("IdempotencyKey")
    if last in ("query", "queryOne", "transaction"):
        names += ["Rows", "Int"]
    if path in ("/query", "/queryOne", "/t/{tenant}/query", "/t/{tenant}/queryOne"):
        names.append("At")
    if last == "{method}":
        names.append("IdempotencyKey")
    for operation in _operations(item):
        operation["responses"]["default"] = {"$ref": "#/components/responses/Error"}
        operation["responses"].pop("400", None)
        if _OPEN_TAGS.isdisjoint(operation.get("tags", ())) and not path.endswith(_OPEN_PATHS):
            operation["security"] = [{"token": []}]
    if names:
        _add_parameters(item, names)


def _describe_transactions(paths: Json) -> None:
    """These handlers take and give encoded bytes; the document shows what is in them."""
    replies = {"query": "QueryReply", "queryOne": "QueryOneReply", "run": "RunReply"}
    for name, reply in replies.items():
        operation = paths[f"/transactions/{{id}}/{name}"]["post"]
        operation["requestBody"] = copy.deepcopy(paths["/run"]["post"]["requestBody"])
        operation["responses"]["200"]["content"] = _json_of(reply)
    commit = paths["/transactions/{id}/commit"]["post"]
    commit["responses"]["200"]["content"] = _json_of("Committed")
    paths["/transactions"]["post"]["responses"]["201"]["content"] = _json_of("TransactionOpened")


def _describe_import(paths: Json) -> None:
    binary = {"application/vnd.sqlite3": {"schema": {"type": "string", "format": "binary"}}}
    operation = paths["/admin/tenants/{name}/import"]["put"]
    operation["requestBody"] = {"required": True, "content": binary}
    paths["/admin/tenants/{name}/export"]["get"]["responses"]["200"]["content"] = binary


def _describe_restore(paths: Json) -> None:
    lines = {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/RestoreLine"}}}
    operation = paths["/admin/tenants/{name}/restore"]["post"]
    operation["responses"]["200"]["content"] = {**_json_of("RestoreReply"), **lines}


def _json_of(name: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _text_parameter(name: str, where: str, description: str, **schema: object) -> Json:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string", **schema},
    }


_COMPONENTS: Json = {
    "securitySchemes": {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "The admin token, a tenant's token, or that of a user's session.",
        }
    },
    "parameters": {
        "TenantHeader": _text_parameter("X-Tenant-ID", "header", "Whose database."),
        "TenantPath": _text_parameter("tenant", "path", "Whose database."),
        "IdempotencyKey": _text_parameter(
            "Idempotency-Key",
            "header",
            "Makes the request repeatable: within 24 hours it gets the first outcome.",
            maxLength=255,
        ),
        "Rows": _text_parameter("rows", "query", "Rows as objects or arrays.", enum=["array"]),
        "At": _text_parameter("at", "query", "Read the past: RFC 3339, or a bookmark."),
        "Int": _text_parameter("int", "query", "Large integers as text.", enum=["string"]),
    },
    "responses": {
        "Error": {"description": "What went wrong.", "content": _json_of("ErrorReply")},
    },
}

__all__ = ["TENANT_PATHS", "build_document"]
