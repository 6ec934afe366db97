"""History: which states of an object its replica can still give, and their files. Blocking."""

from __future__ import annotations

import logging
from pathlib import Path

import apsw
import msgspec

from dosql.errors import CorruptError, NotFoundError
from dosql.replica.image import Image
from dosql.replica.plan import FileInfo, restore_plan
from dosql.replica.reading import OnProgress, unwatched
from dosql.replica.replica import Replica

_log = logging.getLogger("dosql.replica")
_ATTEMPTS = 3
"""Files that are merged while they are being read are gone; what replaced them is not."""


class State(msgspec.Struct, frozen=True):
    """One committed state that can be restored."""

    txid: int
    """0: the empty database that every object began as."""
    timestamp_ms: int
    """When it was committed; 0 for the empty database."""
    files: tuple[FileInfo, ...] = ()
    """To be read for it, in this order."""

    @property
    def bytes(self) -> int:
        """Of its files."""
        return sum(each.size for each in self.files)


def state_of(replica: Replica, txid: int) -> State:
    """The state after this batch; where only a merged file is left around it, the newest one
    before it.

    Raises:
        NotFoundError: ``restore_point_not_found``: it is not kept any more, or has yet to come.
        CorruptError: ``replica_gap``: a file is missing.
    """
    if txid == 0:
        return State(0, 0)
    files = _restorable(replica)
    if txid > max((each.max_txid for each in files), default=0):
        raise _missing("There is no such state yet.")
    return _state(replica, files, txid)


def state_at(replica: Replica, at_ms: int) -> State:
    """The newest state that was committed at this time or before it. Raises: as `state_of`."""
    files = _restorable(replica)
    if not files:
        raise _missing("Nothing of the object is in the bucket.")
    return _state(replica, files, replica.txid_at(at_ms, files))


def _restorable(replica: Replica) -> list[FileInfo]:
    """All files but those in front of the oldest that needs no other: merging left them over."""
    files = replica.files()
    oldest = min((each.max_txid for each in files if each.min_txid == 1), default=None)
    return [] if oldest is None else [each for each in files if each.max_txid >= oldest]


def _state(replica: Replica, files: list[FileInfo], newest: int) -> State:
    """The newest state up to a TXID."""
    for txid in sorted({each.max_txid for each in files if each.max_txid <= newest}, reverse=True):
        plan = restore_plan(files, txid)
        header = replica.header(next(each for each in reversed(plan) if each.max_txid == txid))
        if header.reach == txid:  # else it is that of a later TXID
            return State(txid, header.timestamp_ms, tuple(plan))
    raise _missing("A state that old is not kept any more.")


def write_state(
    replica: Replica,
    txid: int,
    target: Path,
    on_progress: OnProgress = unwatched,
) -> Image | None:
    """Write the database as of exactly ``txid`` to a file, which is made or emptied; None: it is
    the empty database. After an error nothing is left of the file. Neither synced nor checked.

    Raises: as `Replica.write_image`.
    """
    try:
        with target.open("w+b") as out:
            if txid == 0:
                return None
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    image = replica.write_image(out, txid, on_progress=on_progress)
                    if image.is_ahead:
                        raise _missing("This state is not kept.")
                    return image
                except CorruptError:
                    if attempt == _ATTEMPTS:
                        raise
                    _log.info("a file went while it was wanted; trying again", exc_info=True)
            raise AssertionError
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def check_database(path: Path) -> None:
    """Raises CorruptError if SQLite finds a fault in the file, which is at rest."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        answer = connection.execute("PRAGMA integrity_check(1)").fetchall()
    except apsw.Error as error:
        raise CorruptError("What the bucket holds is no sound database.") from error
    finally:
        connection.close()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    if answer != [("ok",)]:
        raise CorruptError("What the bucket holds is no sound database.")


def _missing(message: str) -> NotFoundError:
    return NotFoundError(message, code="restore_point_not_found")
