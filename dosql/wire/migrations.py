"""Migrations: where tenants stand, and a run."""

from __future__ import annotations

from dosql.wire.body import Body


class MigrationState(Body, omit_defaults=False):
    """Where one tenant stands."""

    tenant: str
    version: int
    pending: list[str]
    error: str | None = None


class MigrationReport(Body, omit_defaults=False):
    """Reply of ``GET /admin/migrations`` and of a run."""

    available: list[str]
    tenants: list[MigrationState]


class RunMigrations(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/migrations``. No tenant: all of them."""

    tenant: str | None = None
    dry_run: bool = False
