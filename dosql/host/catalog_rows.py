"""The catalog's tables, as migrations, and their rows, as values."""

from __future__ import annotations

import hashlib

import msgspec

from dosql.log.records import ObjectKey
from dosql.sqlite.migrations import Migration
from dosql.wire.values import SqlValue

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
_OBJECTS_BY_ID = """
CREATE TABLE objects_by_id(
  namespace TEXT NOT NULL,
  id BLOB NOT NULL,
  name TEXT,
  incarnation INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  last_used_at_ms INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL DEFAULT 0,
  schema_version INTEGER NOT NULL DEFAULT 0,
  alarm_at_ms INTEGER,
  PRIMARY KEY (namespace, id),
  UNIQUE (namespace, name)
) STRICT, WITHOUT ROWID;
INSERT INTO objects_by_id
  SELECT namespace, id, name, incarnation, created_at_ms, last_used_at_ms, size_bytes,
    schema_version, NULL
  FROM objects;
DROP TABLE objects;
ALTER TABLE objects_by_id RENAME TO objects;
CREATE INDEX objects_by_alarm ON objects(alarm_at_ms) WHERE alarm_at_ms IS NOT NULL;
"""
_BRANCHES = """
CREATE TABLE branches(
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  parent TEXT NOT NULL,
  parent_id BLOB NOT NULL,
  parent_incarnation INTEGER NOT NULL,
  parent_txid INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX branches_by_parent ON branches(namespace, parent_id, parent_incarnation);
CREATE TABLE protected(
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;
"""
CATALOG_MIGRATIONS = (
    Migration(1, "001_catalog", _SCHEMA, hashlib.sha256(_SCHEMA.encode()).hexdigest()),
    Migration(
        2, "002_objects_by_id", _OBJECTS_BY_ID, hashlib.sha256(_OBJECTS_BY_ID.encode()).hexdigest()
    ),
    Migration(3, "003_branches", _BRANCHES, hashlib.sha256(_BRANCHES.encode()).hexdigest()),
)


class ObjectEntry(msgspec.Struct, frozen=True):
    """One object; those with a unique id have no name."""

    name: str | None
    key: ObjectKey
    created_at_ms: int
    last_used_at_ms: int
    size_bytes: int = 0
    schema_version: int = 0
    alarm_at_ms: int | None = None
    """Not later than the object's earliest alarm; None: it has none."""


class Entry(ObjectEntry, frozen=True):
    """One named object."""

    name: str


class TokenEntry(msgspec.Struct, frozen=True):
    """One token; ``hash`` is SHA-256 of its text."""

    id: str
    hash: bytes
    name: str
    access: str
    created_at_ms: int
    expires_at_ms: int | None


class Use(msgspec.Struct, frozen=True):
    """What changed about a sleeping or running object that no reply waits for."""

    last_used_at_ms: int
    size_bytes: int
    schema_version: int


def entry_from_row(row: tuple[SqlValue, ...]) -> ObjectEntry:
    """In the order of the columns of `Catalog`'s SELECT."""
    name, id, incarnation, created, used, size, version, alarm = row
    assert name is None or isinstance(name, str)
    assert isinstance(id, bytes) and isinstance(incarnation, int)
    assert isinstance(created, int) and isinstance(used, int)
    assert isinstance(size, int) and isinstance(version, int)
    assert alarm is None or isinstance(alarm, int)
    key = ObjectKey(id, incarnation)
    if name is None:
        return ObjectEntry(None, key, created, used, size, version, alarm)
    return Entry(name, key, created, used, size, version, alarm)


def token_from_row(row: tuple[SqlValue, ...]) -> TokenEntry:
    """As `entry_from_row`."""
    id, hash, name, access, created, expires = row
    assert isinstance(id, str) and isinstance(hash, bytes) and isinstance(name, str)
    assert isinstance(access, str) and isinstance(created, int)
    assert expires is None or isinstance(expires, int)
    return TokenEntry(id, hash, name, access, created, expires)
