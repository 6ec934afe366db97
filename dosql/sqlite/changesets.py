"""Changesets: what a session of SQLite's recorded, made in another database."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from dosql.sqlite.database import Database
from dosql.sqlite.sandbox import Right


def apply_changeset(
    db: Database, changeset: bytes, on_conflict: Callable[[int, apsw.TableChange], int]
) -> None:
    """In a transaction: make the changes of a session; ``on_conflict`` answers as SQLite asks.
    No trigger fires: what triggers did is among the changes."""
    connection, sandbox = db._connection, db._sandbox
    right, sandbox.right = sandbox.right, Right.INTERNAL
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    try:
        apsw.Changeset.apply(changeset, connection, conflict=on_conflict)
    except Exception as error:
        db._fail(error)
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
        sandbox.right = right
