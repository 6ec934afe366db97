"""Migrations: numbered SQL files, forward only, each applied once and whole.

What was applied stands in the database itself, in ``_dosql_migrations``, written in the same
transaction as the change. A file that was applied must never change again: its checksum is
compared every time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dosql.errors import BudgetError, QuotaError, RequestError
from dosql.sqlite.database import Database

_FILE_NAME = re.compile(r"(\d{3,})_([a-z0-9_]+)\.sql", re.ASCII)
_CREATE = """
CREATE TABLE IF NOT EXISTS _dosql_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at_ms INTEGER NOT NULL
) STRICT
"""
_EXISTS = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_dosql_migrations'"
_APPLIED = "SELECT version, name, checksum FROM _dosql_migrations ORDER BY version"
_RECORD = (
    "INSERT INTO _dosql_migrations (version, name, checksum, applied_at_ms) VALUES (?, ?, ?, ?)"
)


class MigrationError(RequestError):
    """The files, or what a database knows of them, do not allow to go on.

    Codes: ``migration_invalid`` (a file's name or content), ``migration_drift`` (an applied file
    was changed), ``migration_unknown`` (the database is ahead of the files), ``migration_failed``
    (SQLite refused a file; nothing of that file was applied).
    """

    default_code = "migration_invalid"


class Migration(msgspec.Struct, frozen=True):
    """One file."""

    version: int
    """From 1, without gaps."""
    name: str
    """The file's name without ``.sql``."""
    sql: str
    checksum: str
    """SHA-256 in hex of the file with its line ends as ``\\n``."""


def load_migrations(folder: Path) -> tuple[Migration, ...]:
    """Read ``NNN_name.sql`` in order; files that do not end in ``.sql`` are left alone.

    Raises:
        MigrationError: ``migration_invalid``: no such folder, a bad name, a number that is
            missing or there twice, text that is not UTF-8.
    """
    if not folder.is_dir():
        raise MigrationError(f"There is no folder {folder.name!r} with migrations.")
    found = sorted(
        (_read(path) for path in folder.iterdir() if path.suffix == ".sql"),
        key=lambda migration: (migration.version, migration.name),
    )
    for expected, migration in enumerate(found, start=1):
        if migration.version < expected:
            raise MigrationError(f"There are two migrations {migration.version}.")
        if migration.version > expected:
            raise MigrationError(f"Migration {expected} is missing before {migration.name}.sql.")
    return tuple(found)


def _read(path: Path) -> Migration:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None or int(match[1]) == 0:
        raise MigrationError(
            f"{path.name}: a migration is named like 001_create_users.sql, numbered from 1."
        )
    content = path.read_bytes().replace(b"\r\n", b"\n")
    try:
        sql = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MigrationError(f"{path.name} is not UTF-8.") from None
    return Migration(int(match[1]), path.stem, sql, hashlib.sha256(content).hexdigest())


def pending_migrations(
    db: Database, migrations: Sequence[Migration]
) -> tuple[int, list[Migration]]:
    """The database's version (0: nothing applied), and the migrations it still lacks.

    Raises:
        MigrationError: ``migration_drift``, ``migration_unknown``.
    """
    applied = db.internal_query(_APPLIED) if db.internal_query(_EXISTS) else []
    for index, (version, name, checksum) in enumerate(applied):
        if index >= len(migrations):
            raise MigrationError(
                f"The database has migration {name!r}, which is not among the files.",
                code="migration_unknown",
            )
        migration = migrations[index]
        if (migration.version, migration.name, migration.checksum) != (version, name, checksum):
            raise MigrationError(
                f"{migration.name}.sql is not what was applied as {name!r}:"
                " restore the file and put the change into a new one.",
                code="migration_drift",
            )
    return len(applied), list(migrations[len(applied) :])


def apply_migrations(
    db: Database, migrations: Sequence[Migration], *, now_ms: int
) -> list[Migration]:
    """Apply what is pending, each file in a transaction of its own; returns those applied.

    Raises:
        MigrationError: ``migration_drift``, ``migration_unknown`` (nothing was applied),
            ``migration_failed`` (nothing of that file; those before it stay).
        BudgetError, QuotaError: as any statement; the file can be applied again.
    """
    _, pending = pending_migrations(db, migrations)
    for migration in pending:
        try:
            with db.savepoint():
                db.internal_run(_CREATE)
                db.exec(migration.sql)
                db.internal_run(
                    _RECORD, (migration.version, migration.name, migration.checksum, now_ms)
                )
        except (BudgetError, QuotaError):
            raise
        except RequestError as error:
            raise MigrationError(
                f"{migration.name}.sql failed: {error.message}",
                code="migration_failed",
                sqlite_code=error.sqlite_code,
                offset=error.offset,
            ) from error
    return pending
