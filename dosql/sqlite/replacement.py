"""Putting another state of a database in the place of the one that is open.

The pages of the other state go into the open database in one commit, so that it is a step forward
like any other: it is logged, replicated, and can be taken back.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from dosql.errors import ConflictError, OverloadedError
from dosql.sqlite.database import Database

_PAGES_AT_ONCE = -1
"""All of them: a step that ends early would leave the database locked in between."""


def replace_contents(db: Database, source: Path) -> None:
    """Have ``db`` hold exactly what the database file ``source`` holds, which is at rest and has
    the same page size; an empty file empties it. Takes the open file's captures away: see
    `resume_capture`. May run on any thread; deadlines do not hold.

    Raises:
        ConflictError: ``transaction_open``.
        OverloadedError: ``object_busy``: an iterator is open.
        QuotaError: the database or the disk is full. Then, as after every error, nothing changed.
    """
    db.set_deadline(None)
    if source.stat().st_size == 0:
        db.wipe()
        return
    if db.in_transaction:
        raise ConflictError("A transaction is open.", code="transaction_open")
    db.install(None)
    other = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _copy_pages(db, other)
    finally:
        other.close()
        _forget_contents(db)


def _copy_pages(db: Database, other: apsw.Connection) -> None:
    if db._refusal is not None:
        db._refuse()
    try:
        with db._connection.backup("main", other, "main") as backup:
            backup.step(_PAGES_AT_ONCE)
            if not backup.done:
                raise apsw.BusyError
    except (apsw.BusyError, apsw.LockedError) as error:
        raise OverloadedError(
            "A statement that is still being read stands in the way.", code="object_busy"
        ) from error
    except Exception as error:
        db._fail(error)


def _forget_contents(db: Database) -> None:
    """Other pages may be there: nothing that was known of them holds any more."""
    db._undone += 1
    db._known.clear()
    if db.broken is None:
        db._encoding = str(db.internal_query("PRAGMA encoding")[0][0])
        db.internal_query("SELECT count(*) FROM sqlite_schema")
        # The copy calls no commit hook; who counts commits by it is to see this one.
        db._control("BEGIN IMMEDIATE")
        db._control("COMMIT")
