"""Making a past state fit to be the present one: what a plain copy of the pages would get wrong."""

from __future__ import annotations

from pathlib import Path

from dosql.clock import Clock
from dosql.log.records import ObjectKey
from dosql.objects.pending_restore import forget_pending
from dosql.sqlite.capture import resume_capture
from dosql.sqlite.change_log import ChangeLog, Retention
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import Migration, apply_migrations
from dosql.sqlite.replacement import replace_contents


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
    again, and its schema is brought up to date. ``captured``: changes are captured now.

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
        db.checkpoint()
    finally:
        db.close()


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
