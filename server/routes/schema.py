"""The OpenAPI document and a page that shows it, from local files only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from litestar import Response, Router, get
from litestar.params import FromPath

from dosql.errors import NotFoundError

_STATIC = Path(__file__).parent.parent / "static" / "swagger-ui"
_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
}
_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dosql API</title>
<link rel="stylesheet" href="/schema/static/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/schema/static/swagger-ui-bundle.js"></script>
<script src="/schema/static/swagger-ui-standalone-preset.js"></script>
<script src="/schema/start.js"></script>
</body>
</html>
"""
_START = b"""window.ui = SwaggerUIBundle({
  url: "/schema/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
});
"""
_CACHE = {"Cache-Control": "public, max-age=3600"}


def schema_router(build_document: Callable[[], bytes]) -> Router:
    """Serves ``/schema`` and what its page loads."""
    document = lru_cache(1)(build_document)

    @get("/", media_type="text/html", sync_to_thread=False)
    def page() -> bytes:
        return _PAGE

    @get("/start.js", media_type="text/javascript", sync_to_thread=False)
    def start() -> bytes:
        return _START

    @get("/openapi.json", media_type="application/json", sync_to_thread=True)
    def openapi() -> bytes:
        return document()

    @get("/static/{name:str}")
    async def static(name: FromPath[str]) -> Response[bytes]:
        media_type = _FILES.get(name)
        if media_type is None:
            raise NotFoundError("Not found")
        body = await asyncio.to_thread((_STATIC / name).read_bytes)
        return Response(body, media_type=media_type, headers=_CACHE)

    return Router("/schema", route_handlers=[page, start, openapi, static], include_in_schema=False)
