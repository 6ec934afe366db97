"""The API describes itself: every route is in the document, and its page needs no other host."""

from __future__ import annotations

import re
from typing import Any

import pytest
from litestar import Litestar
from litestar.routes import ASGIRoute, HTTPRoute

from server.app import create_app
from server.change_routes import ACK, CHANGES, SLOT, SLOTS, ChangeRoutes
from server.components import Components
from server.direct import Direct
from server.object_routes import OBJECT_TEMPLATE, RPC_TEMPLATE, RpcRoute
from server.paths import OWN_SEGMENTS, TENANT_ROUTES
from server.sql_routes import sql_routes
from tests.support.server import ServerProcess

CHANGE_ROUTES = {("get", CHANGES), ("get", SLOTS), ("post", SLOTS), ("delete", SLOT), ("post", ACK)}


@pytest.fixture(scope="module")
def document(shared_server: ServerProcess) -> Any:
    reply = shared_server.request("GET", "/schema/openapi.json", token=None)
    assert reply.status == 200
    return reply.json()


def application() -> Litestar:
    """The routes as the server lists them; nothing is called, so nothing stands behind them."""
    components: Any = Components(*[None] * len(Components.__struct_fields__))
    auth: Any = None
    rpc = RpcRoute(components.host, components.gate)
    changes = ChangeRoutes(components.host, components.gate, components.closing)
    below = {"rpc": rpc, "changes": changes}
    return create_app(components, auth, Direct(sql_routes(components.gate), below))


def test_the_document_covers_every_route(document: Any) -> None:
    served: set[tuple[str, str]] = set()
    for route in application().routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        if path.startswith("/schema"):
            continue
        if path == "/changes":
            served |= CHANGE_ROUTES
            continue
        if path == "/rpc":
            path = RPC_TEMPLATE
        if isinstance(route, ASGIRoute):
            served.add(("post", path))
        elif isinstance(route, HTTPRoute):
            served |= {(method.lower(), path) for method in route.methods - {"OPTIONS", "HEAD"}}
    below = {(m, "/t/{tenant}" + p) for m, p in served if p.split("/")[1] in TENANT_ROUTES}
    served |= {(method, OBJECT_TEMPLATE) for method in ("get", "post", "put", "delete")}
    described = {(m, path) for path, item in document["paths"].items() for m in item}
    assert described == served | below


def test_no_route_of_the_server_is_left_to_the_public_door() -> None:
    """Whatever has no first segment in the edge's list would be the app's, if there is one."""
    paths = [route.path for route in application().routes]
    assert {path.split("/")[1] for path in [*paths, "/t/{tenant}", OBJECT_TEMPLATE]} == OWN_SEGMENTS


def test_every_reference_in_the_document_resolves(document: Any) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [each for value in node.values() for each in references(value)]
        if isinstance(node, list):
            return [each for value in node for each in references(value)]
        return []

    found = set(references(document))
    assert found
    for reference in found:
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_the_sql_routes_have_their_schemas(document: Any) -> None:
    operation = document["paths"]["/query"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/SqlRequest"}
    reply = operation["responses"]["200"]["content"]["application/json"]
    assert reply["schema"] == {"$ref": "#/components/schemas/QueryReply"}
    assert "lastInsertRowid" in document["components"]["schemas"]["RunReply"]["properties"]


def test_operation_ids_are_unique(document: Any) -> None:
    ids = [each["operationId"] for item in document["paths"].values() for each in item.values()]
    assert len(ids) == len(set(ids))


def test_only_the_health_routes_and_logins_are_open(document: Any) -> None:
    open_paths = {
        path
        for path, item in document["paths"].items()
        for operation in item.values()
        if "security" not in operation
    }
    logins = {"/auth/signup", "/auth/login"}
    below = {f"/t/{{tenant}}{path}" for path in logins}
    assert open_paths == {"/live", "/ready", "/health"} | logins | below


def test_the_page_loads_local_files_only(shared_server: ServerProcess) -> None:
    page = shared_server.request("GET", "/schema", token=None)
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    assert "//" not in text.replace("<!DOCTYPE", "")
    sources = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(sources) == 4
    for source in sources:
        reply = shared_server.request("GET", source, token=None)
        assert reply.status == 200
        assert reply.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
    start = shared_server.request("GET", "/schema/start.js", token=None).body.decode()
    assert "http" not in start


def test_the_pages_policy_lets_no_foreign_script_run(shared_server: ServerProcess) -> None:
    policy = shared_server.request("GET", "/schema", token=None).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy


@pytest.mark.parametrize("name", ["..%2f..%2frun.py", "LICENSE", "nope.js", "%00"])
def test_no_other_file_is_served(shared_server: ServerProcess, name: str) -> None:
    assert shared_server.request("GET", f"/schema/static/{name}", token=None).status == 404
