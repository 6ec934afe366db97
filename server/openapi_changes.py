"""The routes of changes in the OpenAPI document, which are plain ASGI."""

from __future__ import annotations

from typing import Any

from server.change_routes import ACK, CHANGES, SLOT, SLOTS

Json = dict[str, Any]

_FOLLOW = """Follow the changes of the tenant's rows, in the order of their commits.

A stream of server-sent events (`change`, `schema`, `reset`), or a WebSocket with the same objects
as text messages. With `Accept: application/json`, or `follow=false`, a page of what there is. Each
change is told after it is durable. A `reset` says that not all is kept that was asked for: copy
the tables as they are at its bookmark or later, and go on.
"""
_PARAMETERS = (
    ("after", "integer", "Number of the last change that is known; none: from now on."),
    ("slot", "string", "Begin behind what this slot acknowledged."),
    ("tables", "string", "Names, separated by commas; none: all."),
    ("operations", "string", "Of insert, update, delete and schema, separated by commas."),
    ("limit", "integer", "Changes looked at for a page."),
    ("follow", "boolean", "false: end when everything was sent."),
    ("int", "string", "Large integers as text."),
)


def change_paths() -> Json:
    """All, by path. What holds for all routes is added by the caller."""
    page = {
        "description": "A stream, or a page.",
        "content": {
            "text/event-stream": {"schema": {"type": "string"}},
            "application/json": {"schema": _PAGE},
        },
    }
    name = _parameter("name", "string", "Of the slot.", where="path")
    slot = _json("ChangeSlot")
    return {
        CHANGES: {
            "get": {
                **_operation("FollowChanges", _FOLLOW, {"200": page}),
                "parameters": [_parameter(*each) for each in _PARAMETERS],
            }
        },
        SLOTS: {
            "get": _operation(
                "ListChangeSlots",
                "All slots by name.",
                {"200": {"description": "All of them.", "content": _json("ChangeSlots")}},
            ),
            "post": {
                **_operation(
                    "CreateChangeSlot",
                    "Keep changes for a consumer that may be away, up to a limit.",
                    {"201": {"description": "The slot.", "content": slot}},
                ),
                "requestBody": {"required": True, "content": _json("CreateChangeSlot")},
            },
        },
        SLOT: {
            "delete": {
                **_operation(
                    "DeleteChangeSlot",
                    "Keep nothing for it any more.",
                    {"204": {"description": "It is gone."}},
                ),
                "parameters": [name],
            }
        },
        ACK: {
            "post": {
                **_operation(
                    "AcknowledgeChanges",
                    "No change up to this one is needed again.",
                    {"200": {"description": "The slot.", "content": slot}},
                ),
                "parameters": [name],
                "requestBody": {"required": True, "content": _json("AcknowledgeChanges")},
            }
        },
    }


_ROW: Json = {"type": ["object", "null"], "additionalProperties": True}
_CHANGE: Json = {
    "type": "object",
    "properties": {
        "seq": {"type": "integer"},
        "type": {"enum": ["insert", "update", "delete", "schema", "reset"]},
        "table": {"type": "string"},
        "pk": _ROW,
        "old": _ROW,
        "new": _ROW,
        "sql": {"type": "string"},
        "bookmark": {"type": "string"},
        "txid": {"type": "integer"},
        "timestamp": {"type": "string", "format": "date-time"},
    },
    "required": ["seq", "type"],
}
_PAGE: Json = {
    "type": "object",
    "properties": {
        "changes": {"type": "array", "items": _CHANGE},
        "cursor": {"type": "integer"},
        "more": {"type": "boolean"},
    },
    "required": ["changes", "cursor", "more"],
}


def _operation(id: str, description: str, responses: Json) -> Json:
    return {
        "tags": ["Changes"],
        "summary": id,
        "description": description,
        "operationId": id,
        "responses": responses,
    }


def _json(name: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _parameter(name: str, kind: str, description: str, where: str = "query") -> Json:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": kind},
    }
