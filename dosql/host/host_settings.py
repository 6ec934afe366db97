"""HostSettings: what an operator chooses of a host."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dosql import limits
from dosql.durability import Durability
from dosql.host.changes import ChangeSettings
from dosql.host.cold_settings import ColdTierSettings
from dosql.sqlite.database import DatabaseLimits
from dosql.sqlite.migrations import Migration


class HostSettings(msgspec.Struct, frozen=True):
    """Plain values only; clock, disk and randomness are passed beside them."""

    data_dir: Path
    migrations: tuple[Migration, ...] = ()
    open_objects_max: int = limits.OPEN_OBJECTS_MAX
    idle_seconds: float = limits.IDLE_SECONDS_MAX
    inline_ms: float = limits.INLINE_MS_MAX
    statement_ms: float = limits.STATEMENT_MS_MAX
    transaction_idle_s: float = limits.TRANSACTION_IDLE_S_MAX
    transaction_s: float = limits.TRANSACTION_S_MAX
    log_bytes_max: int = limits.LOG_BYTES_MAX
    log_segment_bytes: int = limits.LOG_SEGMENT_BYTES
    limits: DatabaseLimits = msgspec.field(default_factory=DatabaseLimits)
    cold: ColdTierSettings | None = None
    """The bucket that everything is copied to."""
    changes: ChangeSettings = msgspec.field(default_factory=ChangeSettings)

    @property
    def durability(self) -> Durability:
        """What replies wait for, of tenants and of classes that choose nothing else."""
        return "local" if self.cold is None else self.cold.durability
