"""Branches: tenants whose history begins at a point of another tenant's.

A branch shares the files of its parent in the bucket until it is first written: making one stores
a link and a line in the catalog, whatever the size of the database. From its first write on it has
files of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from dosql.bookmarks import Bookmark
from dosql.clock import Clock, iso_from_ms
from dosql.errors import ConflictError, NotFoundError
from dosql.host.branch_catalog import BranchCatalog, BranchRow
from dosql.host.branch_diff import Comparison, compare
from dosql.host.branch_merge import MergeOutcome, Merger
from dosql.host.cold_tier import ColdTier
from dosql.host.forward_step import forward_step
from dosql.host.names import check_tenant_name
from dosql.host.tenants import Tenants
from dosql.host.time_travel import TimeTravel
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance
from dosql.points import Point, parse_point
from dosql.wire.branches import BranchDiff, BranchInfo, ConflictPolicy, MergeReply

ROWS_MAX = 1_000
"""Rows of a table that a comparison tells; it counts all."""


class Branches:
    """Of the tenants of a host."""

    def __init__(
        self,
        tenants: Tenants,
        travel: TimeTravel,
        cold: ColdTier,
        catalog: BranchCatalog,
        *,
        clock: Clock,
    ) -> None:
        self._tenants = tenants
        self._travel = travel
        self._cold = cold
        self._catalog = catalog
        self._clock = clock
        self._own: set[ObjectKey] = set()
        """Branches that are known to have files of their own."""

    # --- making and listing -------------------------------------------------------------------

    async def create(
        self, parent: str, name: str, at: str | None = None, *, protected: bool = False
    ) -> BranchInfo:
        """Make the tenant ``name``, which begins as ``parent`` was at a point (None: as it is).

        Raises:
            InvalidRequestError: ``invalid_tenant_name``, ``invalid_time``, ``invalid_bookmark``.
            NotFoundError: ``tenant_not_found``, ``restore_point_not_found``.
            ConflictError: ``tenant_exists``.
        """
        check_tenant_name(name)
        tenants, travel = self._tenants, self._travel
        now = self._clock.now_ms()
        point: Point = now if at is None else parse_point(at)
        tenants.check_free(name)
        await self.in_bucket(parent)
        key = tenants.entry(parent).key
        if at is None:
            await travel.shipped(key)
            point = Bookmark(await self._newest(key), key.incarnation)
        state = await travel.find(key, point)
        self._catalog.need(key, state.txid)
        entry = tenants.new_entry(name, expect_new=state.txid == 0)
        row = BranchRow(
            name, entry.key.incarnation, parent, key, state.txid, entry.created_at_ms, protected
        )
        async with tenants.changes:
            tenants.check_free(name)
            if tenants.entry(parent).key != key:
                raise ConflictError("The tenant was replaced meanwhile.")
            if state.txid:
                await travel.on_thread(partial(self._link, entry.key, key, state.txid))
            await self._catalog.put_branch(entry, row)
            await travel.on_thread(partial(tenants.orphans.settled, entry.key))
        return _info(row)

    def _link(self, key: ObjectKey, parent: ObjectKey, txid: int) -> None:
        self._tenants.orphans.coming(key)
        self._cold.link(key, parent, txid)

    async def _newest(self, key: ObjectKey) -> int:
        txid = self._tenants.awake.txid(key)
        return txid or await self._cold.replicated_txid(key, 0)

    def list(self, parent: str) -> list[BranchInfo]:
        """The branches of this tenant, without those of branches.

        Raises NotFoundError (``tenant_not_found``).
        """
        rows = self._catalog.branches_of(self._tenants.entry(parent).key)
        return [_info(row) for row in rows]

    def find(self, parent: str, name: str) -> BranchRow:
        """Raises NotFoundError: ``tenant_not_found``, ``branch_not_found``."""
        key = self._tenants.entry(parent).key
        row = self._catalog.branch(name)
        if row is None or row.parent_key != key:
            raise NotFoundError("The tenant has no such branch.", code="branch_not_found")
        return row

    async def protect(self, name: str, protected: bool) -> None:
        """Say whether a tenant, branch or not, may be deleted, replaced, and merged into."""
        self._tenants.entry(name)
        await self._catalog.protect(name, protected)

    async def is_shared(self, name: str) -> bool:
        """Whether the tenant is a branch without files of its own in the bucket."""
        row = self._catalog.branch(name)
        if row is None or not row.parent_txid:
            return False
        key = self._tenants.entry(name).key
        if key in self._own:
            return False
        replica = self._cold.shipper.replica(key)
        if await self._travel.on_thread(replica.head) is None:
            return True
        self._own.add(key)
        return False

    async def in_bucket(self, name: str) -> None:
        """Return when the bucket has files of the tenant's own: those of a branch that was never
        written are sent now. For others nothing is to be done."""
        if await self.is_shared(name):
            key = self._tenants.entry(name).key
            instance = await self._tenants.wake(self._tenants.get(name))
            shipment = self._cold.shipper.shipment(key, 0)
            shipment.start(instance.logged_txid)
            await self._travel.shipped(key)
            self._own.add(key)

    # --- comparing ----------------------------------------------------------------------------

    async def diff(
        self,
        parent: str,
        name: str,
        *,
        against: Literal["parent", "start"] = "parent",
        rows_max: int = 100,
    ) -> BranchDiff:
        """How the branch, as it is now, differs from its parent now, or from its own beginning.

        Raises:
            NotFoundError: ``tenant_not_found``, ``branch_not_found``; ``restore_point_not_found``:
                its beginning is not kept any more.
        """
        row = self.find(parent, name)
        rows_max = max(0, min(rows_max, ROWS_MAX))
        left = await self._now(parent) if against == "parent" else (row.parent_key, row.parent_txid)
        right = await self._now(name)
        states = self._travel.copies(left, right)
        async with states as (left_path, right_path):
            found: Comparison = await self._tenants.file_threads.run(
                lambda: compare(left_path, right_path, rows_max=rows_max)
            )
        return BranchDiff(
            parent=parent,
            branch=name,
            parent_bookmark=str(Bookmark(left[1], left[0].incarnation)),
            branch_bookmark=str(Bookmark(right[1], right[0].incarnation)),
            against=against,
            schema=found.schema,
            tables=found.tables,
        )

    async def _now(self, name: str) -> tuple[ObjectKey, int]:
        await self.in_bucket(name)
        key = self._tenants.entry(name).key
        newest = await self._newest(key)
        return key, (await self._travel.find(key, Bookmark(newest, key.incarnation))).txid

    # --- merging ------------------------------------------------------------------------------

    async def merge(
        self, parent: str, name: str, *, conflicts: ConflictPolicy = "abort", dry_run: bool = False
    ) -> MergeReply:
        """Apply to the parent, in one commit, what changed in the branch since its beginning.
        The branch stays as it is.

        A row that both changed is a conflict; the policy says what becomes of it. Rows are found
        by their primary keys. Merging twice finds everything merged already.

        Raises:
            NotFoundError: as `diff`.
            ConflictError: ``tenant_protected``; ``merge_schema_differs``: tables that changed
                have other columns in the parent.
        """
        row = self.find(parent, name)
        self._catalog.check_unprotected(parent)
        base, right = (row.parent_key, row.parent_txid), await self._now(name)
        async with self._travel.copies(base, right) as (base_path, branch_path):
            merger = Merger(conflicts, dry_run=dry_run)
            await self._tenants.file_threads.run(lambda: merger.read(base_path, branch_path))

            async def work(instance: Instance) -> MergeOutcome:
                await instance.number_commits()
                return await instance.run_on_thread(merger.apply, instance.statement_s)

            done = await forward_step(self._tenants, self._travel, parent, row.parent_key, work)
        outcome = done.value
        return MergeReply(
            merged=outcome.merged,
            bookmark=str(done.after),
            undo_bookmark=str(done.before) if outcome.wrote else None,
            added=outcome.added,
            removed=outcome.removed,
            changed=outcome.changed,
            conflicts=outcome.conflicts,
            conflict_count=outcome.conflict_count,
        )


def _info(row: BranchRow) -> BranchInfo:
    return BranchInfo(
        name=row.name,
        parent=row.parent,
        bookmark=str(Bookmark(row.parent_txid, row.parent_key.incarnation)),
        created_at=iso_from_ms(row.created_at_ms),
        protected=row.protected,
    )
