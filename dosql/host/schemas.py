"""Schemas: which migrations every tenant has, and bringing those behind up to date."""

from __future__ import annotations

import contextlib

from dosql.errors import DosqlError, NotFoundError
from dosql.host.awake import AwakeObjects
from dosql.host.catalog import Catalog, Entry
from dosql.host.tenants import Tenants
from dosql.host.usage import Usage
from dosql.sqlite.migrations import Migration
from dosql.wire.migrations import MigrationReport, MigrationState, RunMigrations

_PAGE = 1_000


class Schemas:
    """The operator's view of the migrations of all tenants."""

    def __init__(
        self,
        tenants: Tenants,
        catalog: Catalog,
        awake: AwakeObjects,
        usage: Usage,
        migrations: tuple[Migration, ...],
    ) -> None:
        self._tenants = tenants
        self._catalog = catalog
        self._awake = awake
        self._usage = usage
        self._names = [each.name for each in migrations]
        self._errors: dict[str, str] = {}

    def report(self, tenant: str | None = None) -> MigrationReport:
        """Which migrations one tenant, or each, has yet to get. Wakes nobody.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        return MigrationReport(self._names, [self._state(each) for each in self._entries(tenant)])

    async def run(self, request: RunMigrations) -> MigrationReport:
        """Bring one tenant, or all, up to date by waking those that are behind.

        A tenant that fails is reported, and does not keep the others from theirs.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        report = self.report(request.tenant)
        if request.dry_run:
            return report
        for state in report.tenants:
            if not state.pending:
                continue
            self._errors.pop(state.tenant, None)
            try:
                await self._tenants.wake(self._tenants.get(state.tenant))
            except DosqlError as error:
                self._errors[state.tenant] = error.message
        with contextlib.suppress(NotFoundError):
            return self.report(request.tenant)
        return report

    def _entries(self, tenant: str | None) -> list[Entry]:
        if tenant is not None:
            return [self._tenants.entry(tenant)]
        entries: list[Entry] = []
        while page := self._catalog.page("", entries[-1].name if entries else "", _PAGE):
            entries += page
        return entries

    def _state(self, entry: Entry) -> MigrationState:
        if self._awake.peek(entry.key) is not None:
            version = len(self._names)  # being awake proves it
        else:
            use = self._usage.pending(entry.key)
            version = use.schema_version if use else entry.schema_version
        pending = self._names[version:]
        error = self._errors.get(entry.name) if pending else None
        return MigrationState(entry.name, version, pending, error)
