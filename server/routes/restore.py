"""Taking a tenant back to a point in time, or making a tenant of its past."""

from __future__ import annotations

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from dosql.host.names import check_tenant_name
from dosql.wire.restores import RestoreReply, RestoreRequest
from server.components import Components


@post("/tenants/{name:str}/restore", tags=["Time travel"], status_code=200)
async def restore_tenant(
    name: FromPath[str], data: JSONBody[RestoreRequest], components: NamedDependency[Components]
) -> RestoreReply:
    """Restore the state at `at`, into the new tenant `to`, or in place.

    In place it is one more commit: `undoBookmark` names the state before it. With `dryRun` the
    state is built and checked, and nothing changes.
    """
    past = components.host.past
    return await past.restores.restore(
        check_tenant_name(name), data.at, data.to, dry_run=data.dry_run
    )


RESTORE_ROUTES = [restore_tenant]
