"""The authorizer: what SQL may do, by whose right it runs.

SQLite asks while it prepares a statement, once for every table, column, function and PRAGMA in
it; a statement that is prepared is not asked about again. Hence three rules:

- One callback for the life of a connection; only its `right` changes.
- Statements prepared with the server's right never reach a tenant: they live apart in the
  statement cache (see `INTERNAL_PREPARE_FLAGS`).
- The server's right ends where a trigger or a view begins: those are the tenant's own SQL.

What it does not see is looked for after the change instead (see `Sandbox.check_after`): the new
name in ``ALTER TABLE ... RENAME TO``, the parent in ``REFERENCES``, and the table whose rows a
full-text table shows by its option ``content``.
"""

from __future__ import annotations

from enum import Enum

import apsw
import msgspec

from dosql.limits import RESERVED_TABLE_PREFIX, SERVER_TABLES
from dosql.sqlite.allowed import (
    ALTER_FUNCTIONS,
    FUNCTIONS,
    MODULES,
    PRAGMAS_OF,
    PRAGMAS_OPERATOR,
    PRAGMAS_PLAIN,
    TABLES_DENIED,
    mentions,
)

_OK = apsw.SQLITE_OK
_READ = apsw.SQLITE_READ
assert RESERVED_TABLE_PREFIX.startswith("_")  # `_is_reserved` relies on it

INTERNAL_PREPARE_FLAGS = apsw.SQLITE_PREPARE_PERSISTENT
"""Part of the key of APSW's statement cache: keeps the server's statements out of tenants' reach,
even when a tenant sends the very same text."""


class Right(Enum):
    """In whose name a statement runs."""

    TENANT = "tenant"
    OPERATOR = "operator"
    """Migrations and scripts: the tenant's right, and the PRAGMAs a schema change needs."""
    INTERNAL = "internal"
    """The server's own statements on its own tables."""


class Denial(msgspec.Struct, frozen=True):
    """Why a statement was refused, for its sender."""

    code: str
    message: str


_TEMP = frozenset(
    {
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
        apsw.SQLITE_DROP_TEMP_INDEX,
        apsw.SQLITE_DROP_TEMP_TABLE,
        apsw.SQLITE_DROP_TEMP_TRIGGER,
        apsw.SQLITE_DROP_TEMP_VIEW,
    }
)
_CREATE = frozenset(
    {
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
    }
)
_DDL = _CREATE | {
    apsw.SQLITE_ALTER_TABLE,
    apsw.SQLITE_DROP_INDEX,
    apsw.SQLITE_DROP_TABLE,
    apsw.SQLITE_DROP_TRIGGER,
    apsw.SQLITE_DROP_VIEW,
    apsw.SQLITE_DROP_VTABLE,
}
_WRITES = frozenset({apsw.SQLITE_DELETE, apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE})
_FOREIGN_KEY = frozenset({apsw.SQLITE_READ, apsw.SQLITE_DELETE, apsw.SQLITE_UPDATE})
"""What SQLite does to the rows that refer to one that is deleted or gets another key."""
_ROWS = _WRITES | {_READ}
_PLAIN = _ROWS | {apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE}
_TRANSACTIONS = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT})
# Without a name they go over all tables, the server's too: harmless.
_UPKEEP = frozenset({apsw.SQLITE_ANALYZE, apsw.SQLITE_REINDEX})
_FILES = frozenset({apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH})
_STATISTICS = frozenset({"sqlite_stat1", "sqlite_stat3", "sqlite_stat4"})

_NO_TRANSACTIONS = Denial(
    "transaction_forbidden",
    "Transactions cannot be controlled in SQL: use /transaction for several statements at once; "
    "in the code of an object, ctx.storage.transaction_sync().",
)
_NO_SCRIPT_TRANSACTIONS = Denial(
    "transaction_forbidden", "The script runs in a transaction already: leave BEGIN and COMMIT out."
)
_NO_FILES = Denial("sql_forbidden", "ATTACH, DETACH and VACUUM are not available.")
_NO_TEMP = Denial("sql_forbidden", "Temporary tables, views and triggers are not available.")
RESERVED_NAME = Denial(
    "sql_forbidden", f"Names that begin with {RESERVED_TABLE_PREFIX} are reserved for the server."
)
_SERVER_TABLE = Denial("sql_forbidden", "The table belongs to the server.")
SERVER_REFERENCE = Denial(
    "sql_forbidden", "A table may not refer to, or show, one that belongs to the server."
)
_NO_STATISTICS = Denial("sql_forbidden", "The statistics are written by ANALYZE alone.")
_UNKNOWN = Denial("sql_forbidden", "The statement is of a kind that is not available.")


class Sandbox:
    """The authorizer of one connection.

    Between `watch` and `prepared` it also notes what kind of statement it saw.
    """

    def __init__(
        self, connection: apsw.Connection, server_tables: frozenset[str] = SERVER_TABLES
    ) -> None:
        """``server_tables``: those of this database, beside those with the reserved prefix, that
        are the server's; in lower case."""
        self.right = Right.TENANT
        self.server_tables = server_tables
        self.denial: Denial | None = None
        """What was refused last since `watch`."""
        self.asked = False
        """Something was asked since `watch`; if not, the statement came out of the cache."""
        self.schema = False
        """It changes the schema."""
        self.alters = False
        """It is an ALTER TABLE."""
        self.creates = False
        """It adds to the schema."""
        self.pragma = False
        """It holds a PRAGMA, whose answer may depend on more than its text."""
        self.writes = False
        """It writes although SQLite calls it read-only."""
        self.functions: list[str] = []
        """The functions that it calls, once for each call."""
        self.bulk = False
        """It drops a table, or may empty one whole."""
        self.tables: set[str] = set()
        """Those that it reads, as they are spelt in the schema."""
        self.nested = False
        """It runs a view or a trigger: more than its text shows."""
        self._connection = connection
        self._text = ""
        self._tables_guarded = TABLES_DENIED | server_tables

    def watch(self, text: str = "") -> None:
        """Forget what was seen so far: this SQL text is being prepared."""
        self._text = text
        self.denial = None
        self.asked = self.schema = self.alters = self.pragma = self.writes = False
        self.creates = self.nested = self.bulk = False
        self.functions.clear()
        self.tables.clear()

    def prepared(self) -> None:
        """The text is prepared. What SQLite asks from here on, it asks for statements that were
        allowed before, and for those that virtual tables run."""
        self._text = ""

    @property
    def check_after(self) -> bool:
        """Before `prepared`: the statement may have made what the authorizer does not see."""
        return self.alters or (self.schema and self._names_the_servers())

    def is_servers(self, name: str | None) -> bool:
        """Whether a table of this name is the server's."""
        return name is not None and (_is_reserved(name) or name.lower() in self.server_tables)

    def shows_servers(self, sql: str) -> bool:
        """Whether the text that made a virtual table has a name of the server's in it."""
        return RESERVED_TABLE_PREFIX in sql.lower() or mentions(sql, self.server_tables)

    def __call__(
        self, action: int, a: str | None, b: str | None, schema: str | None, inner: str | None
    ) -> int:
        """SQLite's question; ``inner`` is the trigger or view that makes the access, if any."""
        self.asked = True
        if inner is not None:
            self.nested = True
        elif self.right is Right.INTERNAL:
            self.schema = self.schema or action in _DDL
            return _OK
        guarded = self._tables_guarded
        if action == _READ and a and b and a[0] != "_" != b[0] and a.lower() not in guarded:
            self.tables.add(a)
            return _OK  # by far the most frequent question: once per column
        denial = self._denial(action, a, b, schema, inner)
        if denial is None:
            return _OK
        self.denial = denial
        return apsw.SQLITE_DENY

    def _denial(
        self, action: int, a: str | None, b: str | None, schema: str | None, inner: str | None
    ) -> Denial | None:
        if action == apsw.SQLITE_DELETE:
            self.bulk = self.bulk or "where" not in self._text.lower()
        if action in _DDL:
            self.schema = True
            self.alters = self.alters or action == apsw.SQLITE_ALTER_TABLE
            self.creates = self.creates or action in _CREATE
        if action in _TRANSACTIONS:
            return _NO_TRANSACTIONS if self.right is Right.TENANT else _NO_SCRIPT_TRANSACTIONS
        if action in _UPKEEP:
            return None
        if _is_reserved(a) or _is_reserved(b):
            return RESERVED_NAME
        # CREATE TABLE temp.t has the code of any table, and for CREATE TRIGGER temp.t ON main.x
        # only its entry in the schema tells; ALTER TABLE merely reads and updates that.
        if schema == "temp" and (action in _DDL or action == apsw.SQLITE_INSERT):
            return _NO_TEMP
        if action == apsw.SQLITE_FUNCTION:
            return self._function_denial((b or "").lower(), b)
        if self.server_tables and self._is_server_table(action, a, b):
            denial = self._server_denial(action, inner)
            if denial is not None:
                return denial
        if action == apsw.SQLITE_PRAGMA:
            return self._pragma_denial((a or "").lower(), b)
        if action in _ROWS and a is not None:
            return self._table_denial(action, a, inner)
        if action == apsw.SQLITE_CREATE_VTABLE:
            return _only(b, b is not None and b.lower() in MODULES, "The virtual table module")
        if action in _FILES:
            return _NO_FILES
        if action in _TEMP:
            return _NO_TEMP
        return None if action in _PLAIN or action in _DDL else _UNKNOWN

    def _is_server_table(self, action: int, a: str | None, b: str | None) -> bool:
        tables = self.server_tables
        if a is not None and a.lower() in tables:
            return action != apsw.SQLITE_PRAGMA
        # In DDL the second name is a table too, of an index, a trigger or ALTER TABLE.
        return b is not None and action not in _ROWS and b.lower() in tables

    def _server_denial(self, action: int, inner: str | None) -> Denial | None:
        if self.right is Right.OPERATOR and inner is None:
            return None
        # Deleting a user deletes that user's sessions: SQLite's own doing, for no trigger or view
        # makes the access, and the statement does not name the table.
        if action in _FOREIGN_KEY and inner is None and not self._names_the_servers():
            return None
        return _SERVER_TABLE

    def _names_the_servers(self) -> bool:
        return bool(self._text) and self.shows_servers(self._text)

    def _table_denial(self, action: int, table: str, inner: str | None) -> Denial | None:
        name = table.lower()
        if action == _READ:
            return _only(table, name not in TABLES_DENIED, "The table")
        if name in _STATISTICS and (inner is not None or mentions(self._text, _STATISTICS)):
            # DROP TABLE deletes too: that is no way to write.
            return None if self.schema else _NO_STATISTICS
        return None

    def _function_denial(self, name: str, spelt: str | None) -> Denial | None:
        self.functions.append(name)
        if name in FUNCTIONS or (self.alters and name in ALTER_FUNCTIONS):
            return None
        return _only(spelt, False, "The function")

    def _pragma_denial(self, name: str, value: str | None) -> Denial | None:
        self.pragma = True
        if name in PRAGMAS_OF or (name in PRAGMAS_PLAIN and value is None):
            self.writes = self.writes or name == "optimize"
            return None
        if name in PRAGMAS_OPERATOR and self.right is Right.OPERATOR:
            return None
        if name == "defer_foreign_keys" and self._connection.in_transaction:
            return None  # SQLite itself switches it off when the transaction ends
        return Denial("sql_forbidden", f"PRAGMA {name} is not available.")


def _is_reserved(name: str | None) -> bool:
    return name is not None and name[:1] == "_" and name.lower().startswith(RESERVED_TABLE_PREFIX)


def _only(name: str | None, allowed: bool, what: str) -> Denial | None:
    return None if allowed else Denial("sql_forbidden", f"{what} {name} is not available.")
