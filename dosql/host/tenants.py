"""Tenants: the SQL face of the host. Every tenant is an object of the class TenantDatabase."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dosql.clock import Clock, Randomness, iso_from_ms
from dosql.errors import (
    ConflictError,
    DosqlError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from dosql.host import transfer
from dosql.host.catalog import Catalog, Entry
from dosql.host.host_settings import HostSettings
from dosql.host.names import check_tenant_name
from dosql.host.node import Node
from dosql.host.tenant import Tenant
from dosql.host.transactions import OpenTransactions
from dosql.host.usage import Usage
from dosql.ids import IdFactory
from dosql.log.disk import Disk
from dosql.log.records import Drop, ObjectKey
from dosql.log.redo import database_path
from dosql.objects.instance import Instance, InstanceClosed
from dosql.wire.tenants import TenantInfo, TenantPage

if TYPE_CHECKING:
    from dosql.host.past import Past

NAMESPACE = "tenant-database"
"""The class TenantDatabase in kebab-case: the unique key of its ids."""
_IDS = IdFactory(NAMESPACE)
_HANDLES_MAX = 10_000
_PAGE_MAX = 1_000


class Tenants:
    """All tenants of the host."""

    def __init__(
        self,
        catalog: Catalog,
        node: Node,
        usage: Usage,
        *,
        settings: HostSettings,
        clock: Clock,
        randomness: Randomness,
        disk: Disk,
        on_removed: Callable[[], None],
    ) -> None:
        self.awake = node.awake
        self.file_threads = node.file_threads
        self.cold = node.cold
        self.clock = clock
        self.randomness = randomness
        self.settings = settings
        self._catalog = catalog
        self._commits = node.commits
        self._upkeep = node.upkeep
        self.orphans = node.orphans
        self._directory = node.directory
        self._usage = usage
        self._disk = disk
        self._on_removed = on_removed
        self.on_durable: Callable[[ObjectKey], None] = lambda _: None
        """Called when commits of a tenant became durable, and when its life has ended."""
        self.past: Callable[[], Past] = _no_past
        """What is kept of the past; raises if nothing is."""
        self.on_gone: Callable[[ObjectKey], None] = lambda _: None
        """Called when the life of a tenant has ended."""
        self.in_bucket: Callable[[str], Awaitable[None]] = _nothing
        """Returns when the bucket has files of the tenant's own."""
        self.check_removal: Callable[[Entry], None] = lambda _: None
        """Raises what keeps a tenant from being deleted or replaced."""
        self._handles: dict[str, Tenant] = {}
        self.transactions = OpenTransactions()
        self.changes = asyncio.Lock()
        """Creations by import, replacements and deletions, one at a time."""
        self._closing = False

    # --- stubs --------------------------------------------------------------------------------

    def get(self, name: str) -> Tenant:
        """The tenant of this name. No disk but the catalog's is touched.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        tenant = self._handles.get(name)
        if tenant is None:
            entry = self._catalog.find(name)
            if entry is None:
                raise _not_found()
            tenant = self._handle(entry)
        return tenant

    async def ensure(self, name: str) -> Tenant:
        """`get`, and create it at its first use."""
        with contextlib.suppress(NotFoundError):
            return self.get(name)
        with contextlib.suppress(ConflictError):
            await self.create(name)
        return self.get(name)

    def _handle(self, entry: Entry) -> Tenant:
        if len(self._handles) >= _HANDLES_MAX:
            self._handles.clear()
        tenant = self._handles[entry.name] = Tenant(self, entry.name, entry.key)
        return tenant

    async def wake(self, tenant: Tenant) -> Instance:
        """The tenant's instance. Raises NotFoundError if this life of it has ended."""
        if self._closing:
            raise UnavailableError("The server is shutting down.", code="shutting_down")
        entry = self._catalog.find(tenant.name)
        if entry is None or entry.key != tenant.key:
            raise _not_found()
        await self._catalog.durable()  # else the tenant could vanish under an acknowledged write
        instance = await self.awake.get(
            tenant.key, self.settings.migrations, self.settings.durability
        )
        instance.on_durable = partial(self.on_durable, tenant.key)
        self._usage.woke(tenant.key, tenant.name)
        return instance

    # --- administration -----------------------------------------------------------------------

    async def create(self, name: str) -> TenantInfo:
        """Make a tenant; its database comes into being at the first call.

        Raises:
            InvalidRequestError: ``invalid_tenant_name``.
            ConflictError: ``tenant_exists``.
        """
        check_tenant_name(name)
        self.check_free(name)
        entry = self.new_entry(name)
        await self._catalog.put(entry)
        return self._info(entry, 0)

    def check_free(self, name: str) -> None:
        """Raises ConflictError (``tenant_exists``)."""
        if self._catalog.find(name) is not None:
            raise ConflictError("There is a tenant of this name.", code="tenant_exists")

    def new_entry(self, name: str, *, expect_new: bool = True) -> Entry:
        """A life for a tenant of this name, which the catalog does not know yet; ``expect_new``:
        nor does the bucket."""
        now = self.clock.now_ms()
        incarnation = int.from_bytes(self.randomness.token_bytes(8), "little") >> 1
        key = ObjectKey(_IDS.from_name(name).raw, incarnation)
        if expect_new:
            self.awake.expect_new(key)
        return Entry(name, key, now, now)

    def list(self, prefix: str, limit: int, cursor: str | None) -> TenantPage:
        """Up to ``limit`` tenants in name order; ``cursor`` is that of the page before."""
        limit = max(1, min(limit, _PAGE_MAX))
        entries = self._catalog.page(prefix, cursor or "", limit + 1)
        more = len(entries) > limit
        page = entries[:limit]
        return TenantPage([self._info(each) for each in page], page[-1].name if more else None)

    def info(self, name: str) -> TenantInfo:
        """Raises NotFoundError (``tenant_not_found``)."""
        return self._info(self.entry(name))

    async def described(self, name: str) -> TenantInfo:
        """`info`, and what the bucket has of it. Raises also UnavailableError."""
        info, cold = self.info(name), self.cold
        if cold is None:
            return info
        key = self.entry(name).key
        shared = await self.past().branches.is_shared(name)
        info.replicated_txid = 0 if shared else await cold.replicated_txid(key, info.txid)
        info.replica_url = cold.replica_url(key)
        info.txid = max(info.txid, info.replicated_txid)
        return info

    def entry(self, name: str) -> Entry:
        """Raises NotFoundError (``tenant_not_found``)."""
        entry = self._catalog.find(name)
        if entry is None:
            raise _not_found()
        return entry

    def _info(self, entry: Entry, txid: int | None = None) -> TenantInfo:
        """With a ``txid`` nothing is read, and nothing fails any more."""
        instance = self.awake.peek(entry.key)
        use = self._usage.now(instance) if instance else self._usage.pending(entry.key)
        return TenantInfo(
            name=entry.name,
            id=entry.key.id.hex(),
            created_at=iso_from_ms(entry.created_at_ms),
            last_used_at=iso_from_ms(use.last_used_at_ms if use else entry.last_used_at_ms),
            size_bytes=use.size_bytes if use else entry.size_bytes,
            txid=self.awake.txid(entry.key) if txid is None else txid,
            state="hibernated" if instance is None else "awake",
            durability=self.settings.durability,
        )

    async def delete(self, name: str) -> None:
        """The tenant, its data and its tokens are gone for good when this returns.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        async with self.changes:
            entry = self.entry(name)
            self.check_removal(entry)
            await self.transactions.roll_back(name)
            await self.awake.discard(entry.key)
            self._catalog.delete_nowait(name)
            await self._remove(entry)

    async def _remove(self, entry: Entry) -> None:
        """In the same flush as the catalog's change: end this life of the object."""
        dropped = self._commits.add(Drop(entry.key))
        self._handles.pop(entry.name, None)
        self._usage.forget(entry.key)
        self._on_removed()
        self.on_durable(entry.key)
        self.on_gone(entry.key)
        await dropped.wait()
        await self.awake.discard(entry.key)  # a call that was on its way may have woken it
        try:
            await self._upkeep.remove(entry.key)
        except DosqlError as error:
            raise OutcomeUnknownError(
                "The tenant is gone, but not all of its files could be removed."
            ) from error

    @contextlib.asynccontextmanager
    async def export(self, name: str) -> AsyncIterator[Path]:
        """A consistent copy of the database as a file of its own, removed afterwards.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        tenant = self.get(name)
        instance = await self.wake(tenant)
        target = self._directory.scratch / f"export-{self.randomness.token_urlsafe(12)}.sqlite"
        await instance.turns.enter()
        try:
            instance.check_open()
            await instance.flush()

            def copy() -> None:
                instance.checkpoint()
                transfer.copy_database(instance.path, target)

            await self.file_threads.run(copy)
        except InstanceClosed:
            raise UnavailableError("The object went to sleep; try again.") from None
        except BaseException:
            instance.after_work()  # a checkpoint that failed may have broken it
            target.unlink(missing_ok=True)
            raise
        finally:
            instance.turns.leave()
        try:
            yield target
        finally:
            target.unlink(missing_ok=True)

    async def import_file(self, name: str, path: Path, *, new: bool = False) -> TenantInfo:
        """Make the tenant, or replace what it holds, with a database file, which is taken over.

        Nothing changes unless the file is whole and its schema can be brought up to date.

        Raises:
            ConflictError: ``tenant_exists``, if it is to be ``new``.
            InvalidRequestError: ``invalid_tenant_name``; ``invalid_database``: not a database,
                or a damaged one.
            MigrationError: its schema and the migrations do not go together.
        """
        check_tenant_name(name)
        entry = self.new_entry(name)
        target = database_path(self._directory.objects, entry.key)

        async with self.changes:
            if new:
                self.check_free(name)
            old = self._catalog.find(name)
            if old is not None:
                self.check_removal(old)
            txid = self.awake.txid(old.key) + 1 if old else 1
            prepared = transfer.Import(
                path, target, self._disk, self.clock, self.settings.migrations, txid
            )
            await self.file_threads.run(partial(self._put_in_place, entry.key, prepared))
            entry = replace(
                entry,
                created_at_ms=old.created_at_ms if old else entry.created_at_ms,
                size_bytes=prepared.size_bytes,
                schema_version=len(self.settings.migrations),
            )
            if old is None:
                await self._catalog.put(entry)
            else:
                await self.transactions.roll_back(name)
                await self.awake.discard(old.key)
                self._catalog.put_nowait(entry)
                await self._remove(old)
            await self.file_threads.run(partial(self._settle, entry.key))
            if self.cold is not None:
                self.cold.placed(entry.key, txid)
        return self._info(entry, txid)

    def _put_in_place(self, key: ObjectKey, prepared: transfer.Import) -> None:
        self.orphans.coming(key)
        try:
            prepared.run()
        except BaseException:
            self.orphans.settled(key)
            raise

    def _settle(self, key: ObjectKey) -> None:
        if self.cold is not None:
            self.cold.lacks(key)
        self.orphans.settled(key)

    async def close(self) -> None:
        """Refuse new calls and roll back what is open."""
        self._closing = True
        await self.transactions.roll_back()


async def _nothing(name: str) -> None:
    pass


def _no_past() -> Past:
    raise InvalidRequestError(
        "This server has no bucket, so nothing of the past is kept.", code="no_bucket"
    )


def _not_found() -> NotFoundError:
    return NotFoundError("There is no such tenant.", code="tenant_not_found")
