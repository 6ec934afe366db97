"""BranchCatalog: which tenants began as others, and which are protected."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from dosql.errors import ConflictError
from dosql.host.catalog import Arrival, Catalog
from dosql.host.catalog_rows import Entry
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance
from dosql.wire.values import SqlValue

_COLUMNS = (
    "SELECT b.name, b.incarnation, b.parent, b.parent_id, b.parent_incarnation, b.parent_txid,"
    " b.created_at_ms, EXISTS (SELECT 1 FROM protected p"
    " WHERE p.namespace = b.namespace AND p.name = b.name)"
    " FROM branches b JOIN objects o ON o.namespace = b.namespace AND o.name = b.name"
    " AND o.incarnation = b.incarnation WHERE b.namespace = ?"
)


class BranchRow(msgspec.Struct, frozen=True):
    """One branch: a tenant whose history began at another's."""

    name: str
    incarnation: int
    """Of the branch: imported over, it is a branch no more."""
    parent: str
    parent_key: ObjectKey
    parent_txid: int
    created_at_ms: int
    protected: bool


class BranchCatalog(Catalog):
    """The catalog of the tenants, with their branches. `load` it before its use."""

    def __init__(
        self, namespace: str, instance: Callable[[], Instance], arrival: Arrival | None = None
    ) -> None:
        super().__init__(namespace, instance, arrival)
        self._needed: dict[ObjectKey, frozenset[int]] = {}

    def load(self) -> None:
        """Learn which states branches began at."""
        needed: dict[ObjectKey, set[int]] = {}
        for row in self._read(_COLUMNS, (self._namespace,)):
            branch = _branch(row)
            needed.setdefault(branch.parent_key, set()).add(branch.parent_txid)
        self._needed = {key: frozenset(txids) for key, txids in needed.items()}

    def needed(self, key: ObjectKey) -> Collection[int] | None:
        """The states of the object that branches began at, which must be kept; None: none. May be
        called from any thread."""
        return self._needed.get(key)

    def need(self, key: ObjectKey, txid: int) -> None:
        """A branch is about to begin at this state."""
        self._needed[key] = self._needed.get(key, frozenset()) | {txid}

    def delete_nowait(self, name: str) -> None:
        """See `Catalog.delete_nowait`."""
        super().delete_nowait(name)
        if self._needed:
            self.load()

    def branch(self, name: str) -> BranchRow | None:
        """The tenant's beginning; None: it is no branch."""
        rows = self._read(f"{_COLUMNS} AND b.name = ?", (self._namespace, name))
        return _branch(rows[0]) if rows else None

    def branches_of(self, key: ObjectKey) -> list[BranchRow]:
        """All that began at this life of a tenant, in name order."""
        rows = self._read(
            f"{_COLUMNS} AND b.parent_id = ? AND b.parent_incarnation = ? ORDER BY b.name",
            (self._namespace, key.id, key.incarnation),
        )
        return [_branch(row) for row in rows]

    async def put_branch(self, entry: Entry, branch: BranchRow) -> None:
        """Add the tenant, as a branch."""
        parent = branch.parent_key
        statements = [
            self._put(entry),
            (
                "INSERT OR REPLACE INTO branches VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._namespace,
                    branch.name,
                    branch.incarnation,
                    branch.parent,
                    parent.id,
                    parent.incarnation,
                    branch.parent_txid,
                    branch.created_at_ms,
                ),
            ),
        ]
        if branch.protected:
            statements.append(self._protect(branch.name))
        await self._write(statements)

    # --- protection ---------------------------------------------------------------------------

    def is_protected(self, name: str) -> bool:
        """Whether the tenant may be neither deleted nor replaced, nor merged into."""
        where = "WHERE namespace = ? AND name = ?"
        return bool(self._read(f"SELECT 1 FROM protected {where}", (self._namespace, name)))

    async def protect(self, name: str, protected: bool) -> None:
        """Say whether the tenant is protected."""
        if protected:
            await self._write([self._protect(name)])
        else:
            where = "WHERE namespace = ? AND name = ?"
            await self._write([(f"DELETE FROM protected {where}", (self._namespace, name))])

    def _protect(self, name: str) -> tuple[str, tuple[SqlValue, ...]]:
        return "INSERT OR IGNORE INTO protected VALUES (?, ?)", (self._namespace, name)

    def check_unprotected(self, name: str) -> None:
        """Raises ConflictError (``tenant_protected``)."""
        if self.is_protected(name):
            raise ConflictError("The tenant is protected.", code="tenant_protected")

    def check_removal(self, entry: Entry) -> None:
        """Raises ConflictError if this life of the tenant must not end: ``tenant_protected``;
        ``tenant_has_branches``: they may need its history."""
        self.check_unprotected(entry.name)
        if self.branches_of(entry.key):
            raise ConflictError(
                "The tenant has branches, which share its history: delete them first.",
                code="tenant_has_branches",
            )


def _branch(row: tuple[SqlValue, ...]) -> BranchRow:
    name, incarnation, parent, id, parent_incarnation, txid, created, protected = row
    assert isinstance(name, str) and isinstance(incarnation, int) and isinstance(parent, str)
    assert isinstance(id, bytes) and isinstance(parent_incarnation, int)
    assert isinstance(txid, int) and isinstance(created, int)
    key = ObjectKey(id, parent_incarnation)
    return BranchRow(name, incarnation, parent, key, txid, created, bool(protected))
