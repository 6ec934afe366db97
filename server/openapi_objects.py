"""The routes of durable objects in the OpenAPI document, which are plain ASGI."""

from __future__ import annotations

from typing import Any

from server.object_routes import OBJECT_TEMPLATE, RPC_TEMPLATE

Json = dict[str, Any]

_FETCH = """Call the object's `fetch` handler with this method, path, query, headers and body.

Every method is passed on; a request for a WebSocket too. The reply is the object's own.
"""
_RPC = """Call a public method of the object; durable when it answers.

Arguments are converted to what the method's annotations say. Bytes are `{"$blob": "<base64>"}`.
"""
_NAME = "The object's name, percent-encoded; or `@` and the 64 hex digits of its id."


def object_paths() -> Json:
    """Both, by path. What holds for all routes is added by the caller."""
    fetch: Json = {
        method: {
            "tags": ["Objects"],
            "summary": "Fetch",
            "description": _FETCH,
            "operationId": f"ObjectFetch{method.capitalize()}",
            "parameters": [*_address(), _in_path("path", "What the object sees as its path.")],
            "responses": {"200": {"description": "What the object answers."}},
        }
        for method in ("get", "post", "put", "delete")
    }
    for method in ("post", "put"):
        fetch[method]["requestBody"] = {"content": {"*/*": {"schema": {}}}}
    rpc = {
        "tags": ["Objects"],
        "summary": "Rpc",
        "description": _RPC,
        "operationId": "ObjectRpc",
        "parameters": [*_address(), _in_path("method", "A public method of the class.")],
        "requestBody": {"required": False, "content": _json(_CALL)},
        "responses": {"200": {"description": "Its result.", "content": _json(_RESULT)}},
    }
    return {OBJECT_TEMPLATE: fetch, RPC_TEMPLATE: {"post": rpc}}


_CALL: Json = {
    "type": "object",
    "properties": {
        "args": {"type": "array", "items": {}, "default": []},
        "kwargs": {"type": "object", "additionalProperties": True, "default": {}},
    },
    "additionalProperties": False,
}
_RESULT: Json = {"type": "object", "properties": {"result": {}}, "required": ["result"]}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _address() -> list[Json]:
    return [_in_path("namespace", "That of the class."), _in_path("name", _NAME)]


def _in_path(name: str, description: str) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }
