"""A table of the server's inside an object's database; there only once something is stored in it.

So an object that stored nothing has an empty database, and one from before the table existed
needs no migration.
"""

from __future__ import annotations

from dosql.errors import SqlError
from dosql.sqlite.database import Database, Row
from dosql.wire.values import Params


class InternalTable:
    """``columns``: what follows the name in CREATE TABLE."""

    def __init__(self, name: str, columns: str) -> None:
        self._create = f"CREATE TABLE {name} {columns}"
        self._missing = f"no such table: {name}"

    def query(self, db: Database, sql: str, params: Params = ()) -> list[Row]:
        """The rows of a statement that reads the table; none if there is no table."""
        try:
            return db.internal_query(sql, params)
        except SqlError as error:
            if error.message != self._missing:
                raise
            return []

    def delete(self, db: Database, sql: str, params: Params = ()) -> int:
        """Run a DELETE or UPDATE; rows changed, 0 if there is no table."""
        try:
            return db.internal_run(sql, params)
        except SqlError as error:
            if error.message != self._missing:
                raise
            return 0

    def insert(self, db: Database, sql: str, params: Params) -> None:
        """Run an INSERT; the table is made if it is missing."""
        try:
            db.internal_run(sql, params)
        except SqlError as error:
            if error.message != self._missing:
                raise
            db.internal_run(self._create)
            db.internal_run(sql, params)

    def upsert(self, db: Database, sql: str, params: Params) -> list[Row]:
        """Run an INSERT with RETURNING; the table is made if it is missing."""
        try:
            return db.internal_query(sql, params)
        except SqlError as error:
            if error.message != self._missing:
                raise
            db.internal_run(self._create)
            return db.internal_query(sql, params)
