"""Whole databases in and out, as ordinary ``.sqlite`` files."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import apsw

from dosql.clock import Clock
from dosql.errors import DosqlError, ForbiddenError, InvalidRequestError
from dosql.log.disk import Disk
from dosql.log.position import write_position
from dosql.log.redo import remove_database
from dosql.sqlite.database import Database
from dosql.sqlite.imported import check_imported
from dosql.sqlite.migrations import Migration, apply_migrations

_MAGIC = b"SQLite format 3\0"
_FORMAT_VERSIONS_AT = 18
"""Offset of the two header bytes that say 2 for WAL and 1 for a rollback journal."""


def copy_database(source: Path, target: Path) -> None:
    """Copy a checkpointed database; the copy needs no WAL and opens anywhere, read-only too."""
    shutil.copyfile(source, target)
    os.chmod(target, 0o600)
    if target.stat().st_size:
        with target.open("r+b") as file:
            file.seek(_FORMAT_VERSIONS_AT)
            file.write(b"\x01\x01")


class Import:
    """Checks a database file, brings its schema up to date, and puts it in its durable place."""

    def __init__(
        self,
        source: Path,
        target: Path,
        disk: Disk,
        clock: Clock,
        migrations: tuple[Migration, ...],
        txid: int,
    ) -> None:
        self._source = source
        self._target = target
        self._disk = disk
        self._clock = clock
        self._migrations = migrations
        self._txid = txid
        self.size_bytes = 0

    def run(self) -> None:
        """On a thread. On any error nothing is left of the file.

        Raises:
            InvalidRequestError: ``invalid_database``: damaged, or with something in its schema
                that tenants' SQL could not have made.
            MigrationError: the migrations do not go together with its schema.
        """
        try:
            self._check()
            self._bring_up_to_date()
            self._target.parent.mkdir(mode=0o700, exist_ok=True)
            os.chmod(self._source, 0o600)
            file = self._disk.open(self._source)
            try:
                file.sync()
            finally:
                file.close()
            self._disk.rename(self._source, self._target)
            write_position(self._disk, self._target, self._txid)
        except BaseException:
            for path in (self._source, self._target):
                with contextlib.suppress(OSError):
                    remove_database(self._disk, path)
            raise

    def _check(self) -> None:
        with self._source.open("rb") as file:
            head = file.read(100)
        if head and not head.startswith(_MAGIC):
            raise _invalid("The file is not a SQLite database.")
        try:
            connection = apsw.Connection(str(self._source))
            try:
                connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
                answer = connection.execute("PRAGMA integrity_check(1)").fetchall()
            finally:
                connection.close()
        except (apsw.Error, UnicodeError) as error:
            raise _invalid(f"The file cannot be read as a database: {error}.") from None
        if answer != [("ok",)]:
            raise _invalid("The database is damaged: its integrity check failed.")

    def _bring_up_to_date(self) -> None:
        try:
            db = Database(str(self._source), clock=self._clock)
        except DosqlError as error:
            raise _invalid(f"The database cannot be opened: {error.message}") from None
        try:
            db.set_deadline(None)
            self._check_schema(db)
            apply_migrations(db, self._migrations, now_ms=self._clock.now_ms())
            db.checkpoint()
            self.size_bytes = db.size_bytes
        finally:
            db.close()
        for suffix in ("-wal", "-shm", "-journal"):
            self._disk.unlink(self._source.with_name(self._source.name + suffix))

    def _check_schema(self, db: Database) -> None:
        try:
            check_imported(db, self._clock)
        except ForbiddenError as error:
            raise _invalid(f"The database cannot be imported: {error.message}.") from None
        except DosqlError as error:
            raise _invalid(f"The database cannot be read: {error.message}") from None


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, code="invalid_database")
