"""AsyncBranches: tenants whose history begins at a point of another tenant's."""

from __future__ import annotations

from typing import Literal

from dosql.client._async.transport import AsyncTransport
from dosql.client.calls import (
    LONG_WORK_S,
    Call,
    check_tenant_name,
    decode,
    encode,
    json_headers,
    tenant_path,
)
from dosql.client.points import Point, point_text
from dosql.client.rows import rows_from_json
from dosql.wire.branches import (
    BranchDiff,
    BranchInfo,
    BranchList,
    ConflictPolicy,
    CreateBranch,
    MergeConflict,
    MergeReply,
    MergeRequest,
    RowDifference,
)

_JSON = json_headers({})


class AsyncBranches:
    """Of the tenants; ``tenant`` is the parent. To use a branch, take its name as a tenant's; to
    delete it, delete that tenant.

    Every method raises NotFoundError (``tenant_not_found``, ``branch_not_found``), and
    InvalidRequestError (``no_bucket``) if the server has none.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self, tenant: str, name: str, *, at: Point | None = None, protected: bool = False
    ) -> BranchInfo:
        """Make the tenant ``name``, which begins as this one is, or was at a point.

        Raises:
            InvalidRequestError: ``invalid_time``, ``invalid_bookmark``.
            NotFoundError: ``restore_point_not_found``: it is not kept.
            ConflictError: ``tenant_exists``.
        """
        text = None if at is None else point_text(at)
        body = encode(CreateBranch(check_tenant_name(name), text, protected))
        path = f"{tenant_path(tenant)}/branches"
        call = Call("POST", path, body, _JSON, writes=True, repeatable=False)
        return decode(await self._transport.send(call), BranchInfo)

    async def list(self, tenant: str) -> list[BranchInfo]:
        """The branches of this tenant, in name order."""
        reply = await self._transport.send(Call("GET", f"{tenant_path(tenant)}/branches"))
        return decode(reply, BranchList).branches

    async def diff(
        self,
        tenant: str,
        name: str,
        *,
        against: Literal["parent", "start"] = "parent",
        limit: int = 100,
    ) -> BranchDiff:
        """How the branch differs from its parent as that is now, or from its own beginning: the
        schema, and rows by primary key. Counts are exact; ``limit`` rows of each table are told,
        at most 1,000.

        Raises:
            NotFoundError: ``restore_point_not_found``: its beginning is not kept any more.
        """
        path = f"{_path(tenant, name)}/diff?against={against}&limit={limit:d}"
        reply = await self._transport.send(Call("GET", path, timeout_s_min=LONG_WORK_S))
        found = decode(reply, BranchDiff)
        for table in found.tables:
            for row in table.rows:
                _decode_values(row)
        return found

    async def merge(
        self,
        tenant: str,
        name: str,
        *,
        conflicts: ConflictPolicy = "abort",
        dry_run: bool = False,
    ) -> MergeReply:
        """Apply to the tenant, in one commit, what changed in the branch since its beginning.

        ``conflicts`` says what becomes of rows that both changed: ``abort`` merges nothing and
        tells them in the reply, ``ours`` keeps the tenant's, ``theirs`` takes the branch's.

        Raises:
            ConflictError: ``tenant_protected``, ``merge_schema_differs``, ``merge_unsupported``.
        """
        body = encode(MergeRequest(conflicts, dry_run))
        call = Call(
            "POST",
            f"{_path(tenant, name)}/merge",
            body,
            _JSON,
            writes=not dry_run,
            timeout_s_min=LONG_WORK_S,
        )
        reply = decode(await self._transport.send(call), MergeReply)
        for conflict in reply.conflicts:
            _decode_values(conflict)
        return reply


def _decode_values(difference: RowDifference | MergeConflict) -> None:
    difference.key = rows_from_json([difference.key])[0]
    if difference.parent is not None:
        difference.parent = rows_from_json([difference.parent])[0]
    if difference.branch is not None:
        difference.branch = rows_from_json([difference.branch])[0]


def _path(tenant: str, branch: str) -> str:
    return f"{tenant_path(tenant)}/branches/{check_tenant_name(branch)}"
