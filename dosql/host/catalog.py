"""Catalog: which objects exist, their names and alarms, and the tokens that reach them.

It is an object like any other (its own database, the same commit log), so a name is as durable as
the data behind it. Reads are synchronous; writes return when they are durable, those whose names
end in ``_nowait`` at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from dosql.errors import DosqlError
from dosql.host.catalog_rows import (
    CATALOG_MIGRATIONS,
    Entry,
    ObjectEntry,
    TokenEntry,
    Use,
    entry_from_row,
    token_from_row,
)
from dosql.ids import IdFactory
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance
from dosql.sqlite.database import Database
from dosql.wire.values import Params, SqlValue

__all__ = [
    "CATALOG_KEY",
    "CATALOG_MIGRATIONS",
    "Catalog",
    "CatalogTables",
    "Entry",
    "ObjectEntry",
    "TokenEntry",
    "Use",
]

CATALOG_KEY = ObjectKey(IdFactory("dosql-system").from_name("catalog").raw, 1)

_ENTRY = (
    "SELECT name, id, incarnation, created_at_ms, last_used_at_ms, size_bytes, schema_version,"
    " alarm_at_ms FROM objects"
)
_PUT = (
    "INSERT OR REPLACE INTO objects (namespace, id, name, incarnation, created_at_ms,"
    " last_used_at_ms, size_bytes, schema_version, alarm_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_USE = "UPDATE objects SET last_used_at_ms = ?, size_bytes = ?, schema_version = ?"
_TOKEN = "SELECT id, hash, name, access, created_at_ms, expires_at_ms FROM tokens"


Arrival = Callable[[int], Awaitable[None]]
"""Returns when the catalog's batch of this TXID is where it must be beside the log."""


class CatalogTables:
    """The catalog's database. ``instance`` gives it, or raises UnavailableError; ``arrival``: what
    its commits must reach beside the log to be durable here; None: nothing."""

    def __init__(self, instance: Callable[[], Instance], arrival: Arrival | None = None) -> None:
        self._instance = instance
        self._arrival = arrival

    async def durable(self) -> None:
        """Return when everything that was read so far is durable.

        Raises UnavailableError or OutcomeUnknownError if it is not to be.
        """
        await self._durable(self._instance())

    async def _durable(self, instance: Instance) -> None:
        txid = instance.bookmark.txid
        await instance.durable(txid)
        if self._arrival is not None:
            await self._arrival(txid)

    def _read(self, sql: str, params: Params) -> list[tuple[SqlValue, ...]]:
        instance = self._instance()
        instance.db.set_deadline(None)
        try:
            return instance.db.query(sql, params).rows
        except DosqlError:
            instance.after_work()  # a broken catalog must be replaced, not asked again
            raise

    def _write_nowait(self, statements: list[tuple[str, Params]]) -> Instance:
        instance = self._instance()

        def work(db: Database) -> None:
            db.set_deadline(None)
            with db.transaction():
                for sql, params in statements:
                    db.run(sql, params)

        instance.run_inline(work)
        return instance

    async def _write(self, statements: list[tuple[str, Params]]) -> None:
        await self._durable(self._write_nowait(statements))


class Catalog(CatalogTables):
    """The objects and tokens of one namespace."""

    def __init__(
        self, namespace: str, instance: Callable[[], Instance], arrival: Arrival | None = None
    ) -> None:
        super().__init__(instance, arrival)
        self._namespace = namespace

    # --- objects ------------------------------------------------------------------------------

    def find(self, name: str) -> Entry | None:
        """The object of this name. Touches no file but the catalog's."""
        rows = self._read(f"{_ENTRY} WHERE namespace = ? AND name = ?", (self._namespace, name))
        return _named(entry_from_row(rows[0])) if rows else None

    def find_by_id(self, id: bytes) -> ObjectEntry | None:
        """The object of this id, named or not."""
        rows = self._read(f"{_ENTRY} WHERE namespace = ? AND id = ?", (self._namespace, id))
        return entry_from_row(rows[0]) if rows else None

    def page(self, prefix: str, after: str, limit: int) -> list[Entry]:
        """Up to ``limit`` objects whose names start with ``prefix``, behind ``after``, in order;
        those without a name never."""
        rows = self._read(
            f"{_ENTRY} WHERE namespace = ? AND name > ? AND name >= ? AND name < ?"
            " ORDER BY name LIMIT ?",
            (self._namespace, after, prefix, _behind(prefix), limit),
        )
        return [_named(entry_from_row(row)) for row in rows]

    def namespaces(self) -> list[str]:
        """All namespaces that have objects, in order; costs a look-up for each."""
        found: list[str] = []
        while rows := self._read(
            "SELECT namespace FROM objects WHERE namespace > ? ORDER BY namespace LIMIT 1",
            (found[-1] if found else "",),
        ):
            name = rows[0][0]
            assert isinstance(name, str)
            found.append(name)
        return found

    def knows(self, key: ObjectKey) -> bool:
        """Whether there is this life of an object, in any namespace; costs as `namespaces`."""
        return any(
            self._read(
                "SELECT 1 FROM objects WHERE namespace = ? AND id = ? AND incarnation = ?",
                (namespace, key.id, key.incarnation),
            )
            for namespace in self.namespaces()
        )

    async def put(self, entry: ObjectEntry) -> None:
        """Add the object, or give it a new life."""
        await self._write([self._put(entry)])

    def put_nowait(self, entry: ObjectEntry) -> None:
        """`put` without waiting: durable with the current flush."""
        self._write_nowait([self._put(entry)])

    def delete_nowait(self, name: str) -> None:
        """Remove the object and its tokens; durable with the current flush."""
        where = "WHERE namespace = ? AND name = ?"
        names = (self._namespace, name)
        self._write_nowait(
            [
                (f"DELETE FROM {table} {where}", names)
                for table in ("objects", "tokens", "branches", "protected")
            ]
        )

    def delete_id_nowait(self, id: bytes) -> None:
        """`delete_nowait` for an object that need not have a name."""
        where = "WHERE namespace = ? AND id = ?"
        of = (self._namespace, id)
        name = f"(SELECT name FROM objects {where})"
        self._write_nowait(
            [
                (f"DELETE FROM tokens WHERE namespace = ? AND name = {name}", (of[0], *of)),
                (f"DELETE FROM objects {where}", of),
            ]
        )

    def set_alarm_nowait(self, key: ObjectKey, at_ms: int | None) -> None:
        """Note when this life of the object wants to be woken; durable with the current flush.

        An earlier time is noted before the object commits it, a later one, or None, after that:
        then no crash leaves an alarm that the index would find too late.
        """
        self._write_nowait(
            [
                (
                    "UPDATE objects SET alarm_at_ms = ?"
                    " WHERE namespace = ? AND id = ? AND incarnation = ?",
                    (at_ms, self._namespace, key.id, key.incarnation),
                )
            ]
        )

    def record_use(self, uses: Iterable[tuple[str, int, Use]]) -> None:
        """Note (name, incarnation, use) of several objects; nobody waits for it."""
        where = "WHERE namespace = ? AND name = ? AND incarnation = ?"
        self._write_nowait(
            [
                (f"{_USE} {where}", (*_use(use), self._namespace, name, incarnation))
                for name, incarnation, use in uses
            ]
        )

    def record_use_by_id(self, uses: Iterable[tuple[ObjectKey, Use]]) -> None:
        """`record_use` for objects that need not have names."""
        where = "WHERE namespace = ? AND id = ? AND incarnation = ?"
        self._write_nowait(
            [
                (f"{_USE} {where}", (*_use(use), self._namespace, key.id, key.incarnation))
                for key, use in uses
            ]
        )

    def _put(self, entry: ObjectEntry) -> tuple[str, Params]:
        return (
            _PUT,
            (
                self._namespace,
                entry.key.id,
                entry.name,
                entry.key.incarnation,
                entry.created_at_ms,
                entry.last_used_at_ms,
                entry.size_bytes,
                entry.schema_version,
                entry.alarm_at_ms,
            ),
        )

    # --- tokens -------------------------------------------------------------------------------

    def find_token(self, token_id: str) -> TokenEntry | None:
        """The token of this id."""
        rows = self._read(f"{_TOKEN} WHERE id = ?", (token_id,))
        return token_from_row(rows[0]) if rows else None

    async def put_token(self, token: TokenEntry) -> None:
        """Add a token."""
        await self._write(
            [
                (
                    "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        token.id,
                        token.hash,
                        self._namespace,
                        token.name,
                        token.access,
                        token.created_at_ms,
                        token.expires_at_ms,
                    ),
                )
            ]
        )

    async def delete_token(self, token_id: str) -> None:
        """Remove a token."""
        await self._write([("DELETE FROM tokens WHERE id = ?", (token_id,))])


def _use(use: Use) -> tuple[int, int, int]:
    return use.last_used_at_ms, use.size_bytes, use.schema_version


def _named(entry: ObjectEntry) -> Entry:
    assert isinstance(entry, Entry)
    return entry


def _behind(prefix: str) -> str | bytes:
    """The least value that sorts behind every text with this prefix (as UTF-8, as SQLite does)."""
    for index in range(len(prefix) - 1, -1, -1):
        if (code := ord(prefix[index])) < 0x10FFFF:
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)
    return b""  # any blob: SQLite sorts those behind all text
