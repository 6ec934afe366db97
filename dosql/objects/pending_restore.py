"""A restore that an object ordered for its next wake, kept in the object's own database.

So it is ordered if and only if the event that ordered it is kept, and it is done at most once: the
state that takes the place of the database has no such order.
"""

from __future__ import annotations

from dosql.bookmarks import Bookmark
from dosql.objects.internal_table import InternalTable
from dosql.sqlite.database import Database

_TABLE = "_dosql_restore"
_restores = InternalTable(_TABLE, "(id INTEGER PRIMARY KEY CHECK (id = 1), bookmark TEXT NOT NULL)")
_EXISTS = f"SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '{_TABLE}'"


def order_restore(db: Database, bookmark: Bookmark) -> None:
    """In a transaction: at its next wake the object is to go back to this state. The last order
    counts."""
    _restores.insert(db, f"INSERT OR REPLACE INTO {_TABLE} VALUES (1, ?)", (str(bookmark),))


def pending_restore(db: Database) -> Bookmark | None:
    """What was ordered, if anything was."""
    if not db.internal_query(_EXISTS):
        return None
    rows = db.internal_query(f"SELECT bookmark FROM {_TABLE}")
    return Bookmark.parse(str(rows[0][0])) if rows else None


def forget_pending(db: Database) -> None:
    """Take the order back; it leaves no trace."""
    if db.internal_query(_EXISTS):
        db.internal_run(f"DROP TABLE {_TABLE}")
