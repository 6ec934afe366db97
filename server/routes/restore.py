"""Taking a tenant back to a point in time, or making a new tenant of its past."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from dosql.host.names import check_tenant_name
from dosql.replica.reading import OnProgress, unwatched
from dosql.wire.restores import RestoreReply, RestoreRequest
from server.asgi import NDJSON
from server.components import Components
from server.context import context_of
from server.progress_stream import ProgressStream
from server.replies import AnyRequest, AsgiReply, json_reply


@post("/tenants/{name:str}/restore", tags=["Time travel"], status_code=200)
async def restore_tenant(
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[RestoreRequest],
    components: NamedDependency[Components],
) -> Response[Any]:
    """Restore the state at `at`, into the new tenant `to`, or in place.

    In place it is one more commit: `undoBookmark` names the state before it. With `dryRun` the
    state is built and checked, and nothing changes.

    With `Accept: application/x-ndjson` the reply is a stream of lines: how many bytes have been
    read from the bucket, and at the end the `result` or an error.
    """
    restores = components.host.past.restores
    tenant = check_tenant_name(name)

    async def work(on_progress: OnProgress) -> RestoreReply:
        return await restores.restore(
            tenant, data.at, data.to, dry_run=data.dry_run, on_progress=on_progress
        )

    if NDJSON in context_of(request.scope).headers.get(b"accept", b""):
        return AsgiReply(ProgressStream(work, components.clock))
    return json_reply(msgspec.json.encode(await work(unwatched)))


RESTORE_ROUTES = [restore_tenant]
