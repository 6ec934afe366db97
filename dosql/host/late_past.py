"""LatePast: what is kept of the past of all objects, loaded when it is first wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dosql.bookmarks import Bookmark
from dosql.clock import Clock
from dosql.host.branch_catalog import BranchCatalog
from dosql.host.cold_tier import ColdTier
from dosql.host.host_settings import HostSettings
from dosql.host.node import Node
from dosql.host.tenants import Tenants
from dosql.log.records import ObjectKey
from dosql.objects.pending_restore import pending_restore
from dosql.points import Point
from dosql.sqlite.database import Database

if TYPE_CHECKING:
    from dosql.host.past import Past


class LatePast:
    """Of a host with a bucket: call it for its `Past`."""

    def __init__(
        self,
        node: Node,
        cold: ColdTier,
        tenants: Tenants,
        catalog: BranchCatalog,
        settings: HostSettings,
        clock: Clock,
    ) -> None:
        self._node = node
        self._cold = cold
        self._tenants = tenants
        self._catalog = catalog
        self._settings = settings
        self._clock = clock
        self._past: Past | None = None

    @property
    def _scratch(self) -> Path:
        return self._node.directory.scratch

    def __call__(self) -> Past:
        if self._past is None:
            from dosql.host.past import Past  # of no use to most requests

            self._past = Past(
                self._tenants,
                self._cold,
                self._node.awake,
                self._catalog,
                scratch=self._scratch,
                states=self._node.directory.states,
                clock=self._clock,
                workers=self._node.workers,
                settings=self._settings,
            )
        return self._past

    async def bookmark_at(self, key: ObjectKey, point: Point) -> Bookmark:
        """See `dosql.objects.ground.Past`."""
        return await self().travel.bookmark_at(key, point)

    def restore_at_wake(self, db: Database, key: ObjectKey) -> None:
        """Blocking: do what an object, which is being opened, ordered for its next wake."""
        bookmark = pending_restore(db)
        if bookmark is None:
            return
        from dosql.host.past_states import restore_at_wake  # rarely wanted

        restore_at_wake(
            db,
            key,
            bookmark,
            self._cold.shipper.replica(key),
            scratch=self._scratch,
            clock=self._clock,
            retention=self._settings.changes.retention,
        )
