"""Making a past state fit to be the present one: what a plain copy of the pages would get wrong."""

from __future__ import annotations

import logging
from pathlib import Path

from dosql.bookmarks import Bookmark
from dosql.clock import Clock
from dosql.errors import CorruptError, NotFoundError
from dosql.host.sessions import end_sessions
from dosql.log.records import ObjectKey
from dosql.objects.pending_restore import forget_pending
from dosql.replica.history import check_database, write_state
from dosql.replica.replica import Replica
from dosql.sqlite.capture import resume_capture
from dosql.sqlite.change_log import ChangeLog, Retention
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import Migration, apply_migrations
from dosql.sqlite.replacement import replace_contents

_log = logging.getLogger("dosql.host")


def prepare_state(
    path: Path,
    key: ObjectKey,
    *,
    clock: Clock,
    retention: Retention,
    captured: bool,
    migrations: tuple[Migration, ...] | None,
) -> None:
    """Change the database file, of a state of this object, so that the object can go on from it:
    the numbers of its changes are never given twice, a restore that was ordered then is not done
    again, nobody is logged in, and its schema is brought up to date. ``captured``: changes are
    captured now.

    Raises MigrationError.
    """
    if not path.stat().st_size and not captured and not migrations:
        return
    db = Database(str(path), clock=clock)
    try:
        db.set_deadline(None)
        now_ms = clock.now_ms()
        forget_pending(db)
        if ChangeLog.exists(db):
            with db.savepoint():
                ChangeLog(db, retention).restart(key.incarnation, now_ms)
        elif captured:
            with db.savepoint():
                ChangeLog.create(
                    db, start=now_ms * 1000, incarnation=key.incarnation, now_ms=now_ms
                )
        if migrations is not None:
            apply_migrations(db, migrations, now_ms=now_ms)
            end_sessions(db)  # some were ended since then
        db.checkpoint()
    finally:
        db.close()


def restore_at_wake(
    db: Database,
    key: ObjectKey,
    bookmark: Bookmark,
    replica: Replica,
    *,
    scratch: Path,
    clock: Clock,
    retention: Retention,
) -> None:
    """Do a restore that the object ordered, before anybody uses its database. If the state is not
    kept any more, the order is dropped: the object goes on as it is.

    Raises UnavailableError: the bucket cannot be reached; the next wake tries again.
    """
    path = scratch / f"wake-{key.filename}"
    try:
        if write_state(replica, bookmark.txid, path) is not None:
            check_database(path)
        prepare_state(
            path,
            key,
            clock=clock,
            retention=retention,
            captured=db.capture is not None,
            migrations=None,
        )
        replace_state(db, path, key, clock=clock, retention=retention)
    except (NotFoundError, CorruptError) as error:
        _log.error("object %s was not restored to %s: %s", key.id.hex(), bookmark, error)
        forget_pending(db)
    finally:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def replace_state(
    db: Database, path: Path, key: ObjectKey, *, clock: Clock, retention: Retention
) -> None:
    """Have the open database hold what the prepared file holds, in one commit, and go on capturing
    changes if they were. Raises: as `replace_contents`; then nothing changed."""
    try:
        replace_contents(db, path)
    finally:
        if db.broken is None and db.capture is None:
            resume_capture(db, clock, retention, incarnation=key.incarnation)
