"""Script: several statements of the operator's as one; a migration, or a dump."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from dosql.limits import SQL_BYTES_MAX
from dosql.sqlite.sandbox import Right
from dosql.sqlite.schema_checks import check_names, reserved_names
from dosql.sqlite.statements import check_text

if TYPE_CHECKING:
    from dosql.sqlite.database import Database

SCRIPT_BYTES_MAX = 64 * 1024 * 1024
"""A migration or an import may be longer than a request's statement."""


class Script:
    """One script, run once. See `Database.exec`."""

    def __init__(self, db: Database, text: str) -> None:
        self._db = db
        self._text = text
        self._statement = ""
        """What runs now."""

    def run(self) -> None:
        """All of its statements, or none."""
        check_text(self._text)
        db = self._db
        nested = db._open()
        connection, sandbox = db._connection, db._sandbox
        right = sandbox.right
        length = connection.limit(apsw.SQLITE_LIMIT_SQL_LENGTH, SCRIPT_BYTES_MAX)
        try:
            names = reserved_names(db)
            db._touch_schema()
            sandbox.watch("")
            db._bounds.widen()
            sandbox.right = Right.OPERATOR
            self._step()
            check_names(db, sandbox, names)
            sandbox.right = right
            db._close(nested=nested)
        except BaseException:
            sandbox.right = right
            db._undo(nested=nested)
            raise
        finally:
            connection.limit(apsw.SQLITE_LIMIT_SQL_LENGTH, length or SQL_BYTES_MAX)
            db._known.clear()

    def _step(self) -> None:
        db = self._db
        cursor = db._connection.cursor()
        cursor.exec_trace = self._on_statement
        try:
            for _ in cursor.execute(self._text, can_cache=False):
                pass
            self._settle("")
        except Exception as error:
            db._fail(error, self._text)
        finally:
            cursor.close(True)

    def _on_statement(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        self._db._check_still_open()
        self._settle(sql)
        return True

    def _settle(self, following: str) -> None:
        """Between two statements, and behind the last."""
        capture = self._db.capture
        if capture is not None:
            capture.settle(self._statement)
            self._statement = following
