"""Tenants: the SQL face of the host. Every tenant is an object of the class TenantDatabase."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dosql.bookmarks import Bookmark
from dosql.clock import Clock, Randomness, iso_from_ms
from dosql.errors import ConflictError, DosqlError, NotFoundError, UnavailableError
from dosql.host import transfer
from dosql.host.awake import AwakeObjects
from dosql.host.catalog import Catalog, Entry, Use
from dosql.host.data_directory import DataDirectory
from dosql.host.names import check_tenant_name
from dosql.ids import IdFactory
from dosql.log.disk import Disk
from dosql.log.group_commit import GroupCommit
from dosql.log.records import Drop, ObjectKey
from dosql.log.redo import database_path, remove_database
from dosql.objects.idempotency import Idempotency, Work, store_outcome, stored_outcome
from dosql.objects.instance import Instance, InstanceClosed
from dosql.objects.interactive import InteractiveTransaction
from dosql.sqlite.database import Database
from dosql.wire import MigrationReport, MigrationState, RunMigrations, TenantInfo, TenantPage

if TYPE_CHECKING:
    from dosql.host.host import HostSettings

NAMESPACE = "tenant-database"
"""The class TenantDatabase in kebab-case: the unique key of its ids."""
_IDS = IdFactory(NAMESPACE)
_HANDLES_MAX = 10_000
_PAGE_MAX = 1_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of one event."""

    body: bytes
    bookmark: Bookmark
    replayed: bool = False


class Tenant:
    """Calls one tenant's database: wakes it when needed, one event at a time."""

    __slots__ = ("_tenants", "key", "name")

    def __init__(self, tenants: Tenants, name: str, key: ObjectKey) -> None:
        self.name = name
        self.key = key
        self._tenants = tenants

    async def call(self, work: Work, *, idempotency: Idempotency | None = None) -> Done:
        """Run ``work`` as one event; return when all it saw and wrote is durable.

        With a key, the first outcome is stored with the write, and given again to whoever comes
        with the same key and the same request.

        Raises:
            NotFoundError: ``tenant_not_found``: the tenant was deleted meanwhile.
            ConflictError: ``idempotency_key_reused``.
            OverloadedError, UnavailableError: nothing was done.
            DosqlError: whatever ``work`` raised; nothing of it was applied.
        """
        if idempotency is not None:
            return await self._call_once(work, idempotency)
        body, bookmark = await self._call(work)
        return Done(body, bookmark)

    async def _call(self, work: Callable[[Database], T]) -> tuple[T, Bookmark]:
        tenants = self._tenants
        while True:
            instance = tenants.awake.find(self.key)
            if instance is None:
                instance = await tenants.wake(self)
            try:
                return await instance.call(work)
            except InstanceClosed:
                continue

    async def _call_once(self, work: Work, idempotency: Idempotency) -> Done:
        now_ms = self._tenants.clock.now_ms()

        def once(db: Database) -> tuple[bytes, bool]:
            stored = stored_outcome(db, idempotency, now_ms)
            if stored is not None:
                return stored, True
            with db.transaction():
                body = work(db)
                store_outcome(db, idempotency, body, now_ms)
            return body, False

        (body, replayed), bookmark = await self._call(once)
        return Done(body, bookmark, replayed)

    async def committed(self, idempotency: Idempotency) -> Done | None:
        """The outcome stored under the key, or None: then nothing with it was applied."""
        now_ms = self._tenants.clock.now_ms()
        body, bookmark = await self._call(lambda db: stored_outcome(db, idempotency, now_ms))
        return None if body is None else Done(body, bookmark, replayed=True)

    async def begin(self) -> InteractiveTransaction:
        """Begin a transaction over several calls; everybody else waits until it ends.

        Raises:
            OverloadedError: the wait for the turn was too long.
        """
        tenants, settings = self._tenants, self._tenants.settings
        while True:
            instance = await tenants.wake(self)
            id = tenants.randomness.token_urlsafe(24)
            try:
                transaction = await InteractiveTransaction.open(
                    id,
                    instance,
                    clock=tenants.clock,
                    idle_s=settings.transaction_idle_s,
                    life_s=settings.transaction_s,
                )
            except InstanceClosed:
                continue
            tenants.watch(self, transaction)
            return transaction

    def transaction(self, id: str) -> InteractiveTransaction:
        """An open transaction of this tenant. Raises NotFoundError (``transaction_not_found``)."""
        return self._tenants.transaction(self.name, id)


class Tenants:
    """All tenants of the host."""

    def __init__(
        self,
        catalog: Catalog,
        awake: AwakeObjects,
        commits: GroupCommit,
        *,
        settings: HostSettings,
        directory: DataDirectory,
        clock: Clock,
        randomness: Randomness,
        disk: Disk,
        on_removed: Callable[[], None],
    ) -> None:
        self.awake = awake
        self.clock = clock
        self.randomness = randomness
        self.settings = settings
        self._catalog = catalog
        self._commits = commits
        self._directory = directory
        self._disk = disk
        self._on_removed = on_removed
        self._handles: dict[str, Tenant] = {}
        self._by_key: dict[ObjectKey, str] = {}
        """Names of the objects that are or were awake since their use was last recorded."""
        self._uses: dict[ObjectKey, Use] = {}
        self._failed_migrations: dict[str, str] = {}
        self._transactions: dict[str, tuple[str, InteractiveTransaction]] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._changes = asyncio.Lock()
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
        try:
            instance = await self.awake.get(tenant.key, self.settings.migrations)
        except DosqlError as error:
            if error.code.startswith("migration"):
                self._failed_migrations[tenant.name] = error.message
            raise
        self._failed_migrations.pop(tenant.name, None)
        self._by_key[tenant.key] = tenant.name
        return instance

    # --- interactive transactions -------------------------------------------------------------

    @property
    def open_transactions(self) -> int:
        """How many interactive transactions are open."""
        return len(self._transactions)

    def watch(self, tenant: Tenant, transaction: InteractiveTransaction) -> None:
        """Keep the transaction findable until it ends."""
        self._transactions[transaction.id] = (tenant.name, transaction)

        async def forget() -> None:
            await transaction.wait_closed()
            self._transactions.pop(transaction.id, None)

        task = asyncio.get_running_loop().create_task(forget())
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def transaction(self, name: str, id: str) -> InteractiveTransaction:
        """Raises NotFoundError (``transaction_not_found``) also for another tenant's."""
        owner, transaction = self._transactions.get(id, ("", None))
        if transaction is None or owner != name:
            raise NotFoundError(
                "There is no such transaction; it may have ended.", code="transaction_not_found"
            )
        return transaction

    async def _end_transactions(self, name: str | None = None) -> None:
        for owner, transaction in list(self._transactions.values()):
            if name is None or owner == name:
                await transaction.rollback()

    # --- administration -----------------------------------------------------------------------

    async def create(self, name: str) -> TenantInfo:
        """Make a tenant; its database comes into being at the first call.

        Raises:
            InvalidRequestError: ``invalid_tenant_name``.
            ConflictError: ``tenant_exists``.
        """
        check_tenant_name(name)
        if self._catalog.find(name) is not None:
            raise ConflictError("There is a tenant of this name.", code="tenant_exists")
        entry = self._new_entry(name)
        await self._catalog.put(entry)
        return self._info(entry)

    def _new_entry(self, name: str) -> Entry:
        now = self.clock.now_ms()
        incarnation = int.from_bytes(self.randomness.token_bytes(8), "little") >> 1
        return Entry(name, ObjectKey(_IDS.from_name(name).raw, incarnation), now, now)

    def list(self, prefix: str, limit: int, cursor: str | None) -> TenantPage:
        """Up to ``limit`` tenants in name order; ``cursor`` is that of the page before."""
        limit = max(1, min(limit, _PAGE_MAX))
        entries = self._catalog.page(prefix, cursor or "", limit + 1)
        more = len(entries) > limit
        page = entries[:limit]
        return TenantPage([self._info(each) for each in page], page[-1].name if more else None)

    def info(self, name: str) -> TenantInfo:
        """Raises NotFoundError (``tenant_not_found``)."""
        return self._info(self._entry(name))

    def _entry(self, name: str) -> Entry:
        entry = self._catalog.find(name)
        if entry is None:
            raise _not_found()
        return entry

    def _info(self, entry: Entry) -> TenantInfo:
        instance = self.awake.peek(entry.key)
        use = self._uses.get(entry.key)
        if instance is not None:
            use = self._use(instance, entry.schema_version)
        return TenantInfo(
            name=entry.name,
            id=entry.key.id.hex(),
            created_at=iso_from_ms(entry.created_at_ms),
            last_used_at=iso_from_ms(use.last_used_at_ms if use else entry.last_used_at_ms),
            size_bytes=use.size_bytes if use else entry.size_bytes,
            txid=self.awake.txid(entry.key),
            state="hibernated" if instance is None else "awake",
        )

    async def delete(self, name: str) -> None:
        """The tenant, its data and its tokens are gone for good when this returns.

        Raises:
            NotFoundError: ``tenant_not_found``.
        """
        async with self._changes:
            entry = self._entry(name)
            await self._end_transactions(name)
            await self.awake.discard(entry.key)
            self._catalog.delete_nowait(name)
            await self._remove(entry)

    async def _remove(self, entry: Entry) -> None:
        """In the same flush as the catalog's change: end this life of the object."""
        dropped = self._commits.add(Drop(entry.key))
        self._handles.pop(entry.name, None)
        self._by_key.pop(entry.key, None)
        self._uses.pop(entry.key, None)
        self._on_removed()
        await dropped.wait()
        await self.awake.discard(entry.key)  # a call that was on its way may have woken it
        self.awake.forget(entry.key)
        path = database_path(self._directory.objects, entry.key)

        def remove() -> None:
            if remove_database(self._disk, path):
                self._disk.sync_dir(path.parent)

        await self.awake.on_file_thread(remove)

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

            await self.awake.on_file_thread(copy)
        except InstanceClosed:
            raise UnavailableError("The object went to sleep; try again.") from None
        finally:
            instance.turns.leave()
        try:
            yield target
        finally:
            target.unlink(missing_ok=True)

    async def import_file(self, name: str, path: Path) -> TenantInfo:
        """Make the tenant, or replace what it holds, with a database file, which is taken over.

        Nothing changes unless the file is whole and its schema can be brought up to date.

        Raises:
            InvalidRequestError: ``invalid_tenant_name``; ``invalid_database``: not a database,
                or a damaged one.
            MigrationError: its schema and the migrations do not go together.
        """
        check_tenant_name(name)
        entry = self._new_entry(name)
        target = database_path(self._directory.objects, entry.key)

        async with self._changes:
            old = self._catalog.find(name)
            txid = self.awake.txid(old.key) + 1 if old else 1
            prepared = transfer.Import(
                path, target, self._disk, self.clock, self.settings.migrations, txid
            )
            await self.awake.on_file_thread(prepared.run)
            entry = replace(
                entry,
                created_at_ms=old.created_at_ms if old else entry.created_at_ms,
                size_bytes=prepared.size_bytes,
                schema_version=len(self.settings.migrations),
            )
            if old is None:
                await self._catalog.put(entry)
            else:
                await self._end_transactions(name)
                await self.awake.discard(old.key)
                self._catalog.put_nowait(entry)
                await self._remove(old)
        return self._info(entry)

    # --- migrations ---------------------------------------------------------------------------

    def migration_report(self, names: list[str] | None = None) -> MigrationReport:
        """Which migrations each tenant has yet to get. Wakes nobody."""
        available = [each.name for each in self.settings.migrations]
        states = [
            MigrationState(
                tenant=entry.name,
                version=self._version(entry),
                pending=available[self._version(entry) :],
                error=self._failed_migrations.get(entry.name),
            )
            for entry in self._entries(names)
        ]
        return MigrationReport(available, states)

    async def run_migrations(self, request: RunMigrations) -> MigrationReport:
        """Bring one tenant, or all, up to date by waking those that are behind.

        A tenant that fails is reported, and does not keep the others from theirs.
        """
        names = None if request.tenant is None else [request.tenant]
        report = self.migration_report(names)
        if request.dry_run:
            return report
        for state in report.tenants:
            if state.pending:
                with contextlib.suppress(DosqlError):
                    await self.wake(self.get(state.tenant))
        return self.migration_report(names)

    def _entries(self, names: list[str] | None) -> list[Entry]:
        if names is not None:
            return [self._entry(name) for name in names]
        entries: list[Entry] = []
        while page := self._catalog.page("", entries[-1].name if entries else "", _PAGE_MAX):
            entries += page
        return entries

    def _version(self, entry: Entry) -> int:
        if self.awake.peek(entry.key) is not None:
            return len(self.settings.migrations)  # being awake proves it
        use = self._uses.get(entry.key)
        return use.schema_version if use else entry.schema_version

    # --- use ----------------------------------------------------------------------------------

    def _use(self, instance: Instance, schema_version: int) -> Use:
        idle_ms = int((self.clock.monotonic() - instance.used_at) * 1000)
        return Use(self.clock.now_ms() - idle_ms, instance.size_bytes, schema_version)

    def slept(self, instance: Instance) -> None:
        """An object goes to sleep: note when it was used last, and how large it is."""
        if instance.key in self._by_key:
            self._uses[instance.key] = self._use(instance, len(self.settings.migrations))
            if len(self._uses) >= _PAGE_MAX:
                self.record_uses()

    def record_uses(self) -> None:
        """Write what was noted to the catalog, in one transaction."""
        uses, self._uses = self._uses, {}
        named = [
            (self._by_key[key], key.incarnation, use)
            for key, use in uses.items()
            if key in self._by_key
        ]
        for key in uses:
            if self.awake.peek(key) is None:
                self._by_key.pop(key, None)
        if named:
            self._catalog.record_use(named)

    async def close(self) -> None:
        """Refuse new calls and roll back what is open."""
        self._closing = True
        await self._end_transactions()


def _not_found() -> NotFoundError:
    return NotFoundError("There is no such tenant.", code="tenant_not_found")


__all__ = ["Bookmark", "Done", "Idempotency", "InteractiveTransaction", "Tenant", "Tenants", "Work"]
