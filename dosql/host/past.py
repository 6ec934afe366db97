"""Past: all that a host with a bucket can do with what was."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from dosql.clock import Clock
from dosql.host.awake import AwakeObjects
from dosql.host.branch_catalog import BranchCatalog
from dosql.host.branches import Branches
from dosql.host.cold_tier import ColdTier
from dosql.host.restores import Restores
from dosql.host.snapshots import Snapshots
from dosql.host.tenants import Tenants
from dosql.host.time_travel import TimeTravel

if TYPE_CHECKING:
    from dosql.host.host_settings import HostSettings


class Past:
    """Made when it is first wanted."""

    def __init__(
        self,
        tenants: Tenants,
        cold: ColdTier,
        awake: AwakeObjects,
        catalog: BranchCatalog,
        *,
        scratch: Path,
        states: Path,
        clock: Clock,
        workers: Executor,
        settings: HostSettings,
    ) -> None:
        self.travel = TimeTravel(
            cold,
            awake,
            scratch=scratch,
            states=states,
            clock=clock,
            limits=settings.limits,
            workers=workers,
            statement_s=settings.statement_ms / 1000,
        )
        tenants.on_gone = self.travel.states.forget
        retention = settings.changes.retention
        self.restores = Restores(tenants, self.travel, clock=clock, retention=retention)
        self.snapshots = Snapshots(tenants, self.travel, cold, scratch=scratch)
        self.branches = Branches(tenants, self.travel, cold, catalog, clock=clock)
        tenants.in_bucket = self.branches.in_bucket
