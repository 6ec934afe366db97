"""Redo: bring database files to the last durable commit, whatever SQLite's own WAL says.

A file holds its state as of its position, and perhaps some pages of later commits (a checkpoint
that was under way). Every page changed behind the position is in the log, so writing them all, in
order, gives exactly the last durable state. Doing it twice does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from dosql.errors import CorruptError
from dosql.log.disk import Disk, DiskFile
from dosql.log.position import position_path, read_position, write_position
from dosql.log.records import Batch, Drop, Found, ObjectKey

_OPEN_FILES_MAX = 256


class _Redone(msgspec.Struct):
    path: Path
    txid: int
    """What the file holds so far."""
    since: int = 0
    """The log's groups before this one are void for it."""
    commit_bytes: int | None = None
    reason: str | None = None
    """Why nothing may be served from it."""


class RedoReport(msgspec.Struct):
    """What a replay did."""

    records: int = 0
    objects: int = 0
    damaged: dict[ObjectKey, str] = msgspec.field(default_factory=dict[ObjectKey, str])


class Redo:
    """Applies records to the files below ``root`` and then makes them durable."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self._objects: dict[ObjectKey, _Redone] = {}
        self._files: dict[ObjectKey, DiskFile] = {}

    def run(self, records: Iterable[tuple[int, Found]]) -> RedoReport:
        """Apply all, given with the numbers of their groups; when this returns every file
        touched is durable and its position says so."""
        report = RedoReport()
        for sequence, record in records:
            report.records += 1
            if isinstance(record, Drop):
                self._drop(record.key)
                continue
            state = self._object(record.key)
            if sequence < state.since:
                continue
            if isinstance(record, Batch):
                self._apply(record)
            elif record.txid > state.txid:
                state.reason = state.reason or f"batch {record.txid} in the log is damaged"
        for key in list(self._objects):
            self._finish(key, report)
        return report

    def _object(self, key: ObjectKey) -> _Redone:
        state = self._objects.get(key)
        if state is None:
            path = database_path(self._root, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            state = self._objects[key] = _Redone(path, 0)
            try:
                position = read_position(self._disk, path)
                state.txid, state.since = position.txid, position.since
            except CorruptError as error:
                state.reason = error.message
            if state.txid and not path.exists():
                state.reason = "its database file is missing"
            remove_wal(self._disk, path)
        return state

    def _apply(self, batch: Batch) -> None:
        state = self._object(batch.key)
        if state.reason or batch.txid <= state.txid:
            return
        if batch.txid != state.txid + 1:
            state.reason = f"batches {state.txid + 1} to {batch.txid - 1} are missing from the log"
            return
        file = self._file(batch.key, state.path)
        size = batch.pages.page_size
        for pgno, content in batch.pages.pages.items():
            file.pwrite(content, (pgno - 1) * size)
        state.txid = batch.txid
        state.commit_bytes = batch.pages.commit * size

    def _file(self, key: ObjectKey, path: Path) -> DiskFile:
        file = self._files.get(key)
        if file is None:
            if len(self._files) >= _OPEN_FILES_MAX:
                self._files.pop(next(iter(self._files))).close()
            file = self._files[key] = self._disk.open(path, create=True)
        return file

    def _drop(self, key: ObjectKey) -> None:
        self._objects.pop(key, None)
        if key in self._files:
            self._files.pop(key).close()
        path = database_path(self._root, key)
        remove_database(self._disk, path)
        if path.parent.exists():  # also if there was nothing: an earlier removal may not be durable
            self._disk.sync_dir(path.parent)

    def _finish(self, key: ObjectKey, report: RedoReport) -> None:
        state = self._objects[key]
        report.objects += 1
        if state.reason:
            report.damaged[key] = state.reason
            self._mark_damaged(state.path, state.reason)
        elif state.commit_bytes is not None:
            file = self._file(key, state.path)
            file.truncate(state.commit_bytes)
            file.sync()
            write_position(self._disk, state.path, state.txid)
        elif state.txid:  # whoever wrote it may have been killed before it was durable
            write_position(self._disk, state.path, state.txid)
        if key in self._files:
            self._files.pop(key).close()

    def _mark_damaged(self, path: Path, reason: str) -> None:
        """Durably: the log, which knows better, goes away after this."""
        file = self._disk.open(damaged_path(path), create=True)
        try:
            file.truncate(0)
            file.pwrite(f"{reason}\n".encode(), 0)
            file.sync()
        finally:
            file.close()
        self._disk.sync_dir(path.parent)
        self._disk.sync_dir(path.parent.parent)


def database_path(root: Path, key: ObjectKey) -> Path:
    """Where an object's database is: fanned out over 256 directories."""
    name = key.filename
    return root / name[:2] / name


def damaged_path(database: Path) -> Path:
    """A file beside the database that says why nothing is served from it."""
    return database.with_name(database.name + ".damaged")


def remove_wal(disk: Disk, database: Path) -> None:
    """Forget what SQLite kept beside the file: the log is the truth.

    A rollback journal too: SQLite has one for a moment when it makes a file, and after a power
    loss it would undo all that the file was given since.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        disk.unlink(database.with_name(database.name + suffix))


def remove_database(disk: Disk, database: Path) -> bool:
    """Remove an object's files. Whether there were any."""
    existed = database.exists() or position_path(database).exists()
    if existed:
        remove_wal(disk, database)
        disk.unlink(database)
        disk.unlink(position_path(database))
        disk.unlink(damaged_path(database))
    return existed
