"""Catalog: which objects exist, under which names, and the tokens that reach them.

It is an object like any other (its own database, the same commit log), so a name is as durable as
the data behind it. Reads are synchronous; writes return when they are durable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dosql.errors import DosqlError
from dosql.ids import IdFactory
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import Migration
from dosql.wire import Params, SqlValue

CATALOG_KEY = ObjectKey(IdFactory("dosql-system").from_name("catalog").raw, 1)

_SCHEMA = """
CREATE TABLE objects(
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  id BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  last_used_at_ms INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL DEFAULT 0,
  schema_version INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens(
  id TEXT PRIMARY KEY,
  hash BLOB NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  access TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_name ON tokens(namespace, name);
"""
CATALOG_MIGRATIONS = (
    Migration(1, "001_catalog", _SCHEMA, hashlib.sha256(_SCHEMA.encode()).hexdigest()),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One named object."""

    name: str
    key: ObjectKey
    created_at_ms: int
    last_used_at_ms: int
    size_bytes: int = 0
    schema_version: int = 0


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One token; ``hash`` is SHA-256 of its text."""

    id: str
    hash: bytes
    name: str
    access: str
    created_at_ms: int
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Use:
    """What changed about a sleeping or running object that no reply waits for."""

    last_used_at_ms: int
    size_bytes: int
    schema_version: int


_ENTRY = (
    "SELECT name, id, incarnation, created_at_ms, last_used_at_ms, size_bytes, schema_version"
    " FROM objects"
)
_TOKEN = "SELECT id, hash, name, access, created_at_ms, expires_at_ms FROM tokens"


class Catalog:
    """The objects and tokens of one namespace. ``instance`` gives the catalog's own database."""

    def __init__(self, namespace: str, instance: Callable[[], Instance]) -> None:
        self._namespace = namespace
        self._instance = instance

    # --- objects ------------------------------------------------------------------------------

    def find(self, name: str) -> Entry | None:
        """The object of this name. Touches no file but the catalog's."""
        rows = self._read(f"{_ENTRY} WHERE namespace = ? AND name = ?", (self._namespace, name))
        return _entry(rows[0]) if rows else None

    def page(self, prefix: str, after: str, limit: int) -> list[Entry]:
        """Up to ``limit`` objects whose names start with ``prefix``, behind ``after``, in order."""
        rows = self._read(
            f"{_ENTRY} WHERE namespace = ? AND name > ? AND name >= ? AND name < ?"
            " ORDER BY name LIMIT ?",
            (self._namespace, after, prefix, prefix + "\U0010ffff", limit),
        )
        return [_entry(row) for row in rows]

    async def durable(self) -> None:
        """Return when everything that was read so far is durable.

        Raises UnavailableError or OutcomeUnknownError if it is not to be.
        """
        instance = self._instance()
        await instance.durable(instance.bookmark.txid)

    async def put(self, entry: Entry) -> None:
        """Add the object, or give its name a new life."""
        await self._write([self._put(entry)])

    def put_nowait(self, entry: Entry) -> None:
        """`put` without waiting: durable with the current flush."""
        self._write_nowait([self._put(entry)])

    def delete_nowait(self, name: str) -> None:
        """Remove the object and its tokens; durable with the current flush."""
        where = "WHERE namespace = ? AND name = ?"
        names = (self._namespace, name)
        self._write_nowait(
            [(f"DELETE FROM objects {where}", names), (f"DELETE FROM tokens {where}", names)]
        )

    def record_use(self, uses: Iterable[tuple[str, int, Use]]) -> None:
        """Note (name, incarnation, use) of several objects; nobody waits for it."""
        self._write_nowait(
            [
                (
                    "UPDATE objects SET last_used_at_ms = ?, size_bytes = ?, schema_version = ?"
                    " WHERE namespace = ? AND name = ? AND incarnation = ?",
                    (
                        use.last_used_at_ms,
                        use.size_bytes,
                        use.schema_version,
                        self._namespace,
                        name,
                        incarnation,
                    ),
                )
                for name, incarnation, use in uses
            ]
        )

    # --- tokens -------------------------------------------------------------------------------

    def find_token(self, token_id: str) -> TokenEntry | None:
        """The token of this id."""
        rows = self._read(f"{_TOKEN} WHERE id = ?", (token_id,))
        return _token(rows[0]) if rows else None

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

    # --- the database -------------------------------------------------------------------------

    def _put(self, entry: Entry) -> tuple[str, Params]:
        return (
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._namespace,
                entry.name,
                entry.key.id,
                entry.key.incarnation,
                entry.created_at_ms,
                entry.last_used_at_ms,
                entry.size_bytes,
                entry.schema_version,
            ),
        )

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
        instance = self._write_nowait(statements)
        await instance.durable(instance.bookmark.txid)


def _entry(row: tuple[SqlValue, ...]) -> Entry:
    name, id, incarnation, created, used, size, version = row
    assert isinstance(name, str) and isinstance(id, bytes) and isinstance(incarnation, int)
    assert isinstance(created, int) and isinstance(used, int)
    assert isinstance(size, int) and isinstance(version, int)
    return Entry(name, ObjectKey(id, incarnation), created, used, size, version)


def _token(row: tuple[SqlValue, ...]) -> TokenEntry:
    id, hash, name, access, created, expires = row
    assert isinstance(id, str) and isinstance(hash, bytes) and isinstance(name, str)
    assert isinstance(access, str) and isinstance(created, int)
    assert expires is None or isinstance(expires, int)
    return TokenEntry(id, hash, name, access, created, expires)
