"""Durable objects, for the admin token. Their own routes stand in `server.object_routes`."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from dosql.errors import InvalidRequestError
from dosql.limits import OBJECT_NAME_BYTES_MAX
from dosql.wire.objects import ObjectPage
from server.components import Components
from server.routes.admin import PAGE_MAX


@get("/objects/{namespace:str}", tags=["Objects"])
async def list_objects(
    namespace: FromPath[str],
    components: NamedDependency[Components],
    prefix: Annotated[str, QueryParameter(description="How the names begin.")] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Objects per page.")] = 100,
    cursor: Annotated[
        str | None, QueryParameter(description="`cursor` of the page before.")
    ] = None,
) -> ObjectPage:
    """Objects of a class that have a name, in name order, page by page; none is woken."""
    for text in (prefix, cursor or ""):
        if len(text.encode()) > OBJECT_NAME_BYTES_MAX:
            raise InvalidRequestError("prefix or cursor is longer than any object's name.")
    return await components.host.objects.namespace(namespace).list(prefix, limit, cursor)


OBJECT_ROUTES = [list_objects]
