"""The authorizer: what SQL may do, by whose right it runs.

SQLite asks while it prepares a statement, once for every table, column, function and PRAGMA in
it; a statement that is prepared is not asked about again. Hence three rules:

- One callback for the life of a connection; only its `right` changes.
- Statements prepared with the server's right never reach a tenant: they live apart in the
  statement cache (see `INTERNAL_PREPARE_FLAGS`).
- The server's right ends where a trigger or a view begins: those are the tenant's own SQL.

What it does not see: the new name in ``ALTER TABLE ... RENAME TO`` (see `Sandbox.alters`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import apsw

from dosql.limits import RESERVED_TABLE_PREFIX

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


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a statement was refused, for its sender."""

    code: str
    message: str


# Reading only: refused when a value is given.
_PRAGMAS_PLAIN = frozenset(
    {
        "application_id",
        "data_version",  # full-text search asks for it
        "encoding",
        "freelist_count",
        "page_count",
        "page_size",
        "table_list",
        "user_version",
    }
)
# The value names a table, an index or a count.
_PRAGMAS_OF = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
_PRAGMAS_OPERATOR = frozenset({"application_id", "defer_foreign_keys", "user_version"})
_MODULES = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})
# Table-valued functions and tables that show more than the tenant's own data.
_TABLES_DENIED = frozenset(
    {
        "bytecode",
        "carray",
        "completion",
        "dbstat",
        "fts3tokenize",
        "pragma_database_list",
        "sqlite_dbdata",
        "sqlite_dbpage",
        "sqlite_dbptr",
        "sqlite_stmt",
        "tables_used",
    }
)
_FUNCTIONS_DENIED = frozenset(
    {"edit", "fts3_tokenizer", "load_extension", "readfile", "sqlite_log", "writefile"}
)

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
_DDL = frozenset(
    {
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
    }
)
_TRANSACTIONS = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT})
# Without a name they go over all tables, the server's too: harmless.
_UPKEEP = frozenset({apsw.SQLITE_ANALYZE, apsw.SQLITE_REINDEX})
_FILES = frozenset({apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH})

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


class Sandbox:
    """The authorizer of one connection.

    Between `watch` and the end of a prepare it also notes what kind of statement it saw.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.right = Right.TENANT
        self.denial: Denial | None = None
        """What was refused last since `watch`."""
        self.asked = False
        """Something was asked since `watch`; if not, the statement came out of the cache."""
        self.schema = False
        """It changes the schema."""
        self.alters = False
        """It is an ALTER TABLE, whose new name nobody has looked at yet."""
        self.pragma = False
        """It holds a PRAGMA, whose answer may depend on more than its text."""
        self.writes = False
        """It writes although SQLite calls it read-only."""
        self._connection = connection

    def watch(self) -> None:
        """Forget what was seen so far."""
        self.denial = None
        self.asked = self.schema = self.alters = self.pragma = self.writes = False

    def __call__(
        self, action: int, a: str | None, b: str | None, schema: str | None, inner: str | None
    ) -> int:
        """SQLite's question; ``inner`` is the trigger or view that makes the access, if any."""
        self.asked = True
        if self.right is Right.INTERNAL and inner is None:
            self.schema = self.schema or action in _DDL
            return _OK
        if action == _READ and a and b and a[0] != "_" != b[0] and a.lower() not in _TABLES_DENIED:
            return _OK  # by far the most frequent question: once per column
        denial = self._denial(action, a, b, schema)
        if denial is None:
            return _OK
        self.denial = denial
        return apsw.SQLITE_DENY

    def _denial(
        self, action: int, a: str | None, b: str | None, schema: str | None
    ) -> Denial | None:
        if action in _DDL:
            self.schema = True
            self.alters = self.alters or action == apsw.SQLITE_ALTER_TABLE
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
        if action == _READ:
            return _only(a, a is None or a.lower() not in _TABLES_DENIED, "The table")
        if action == apsw.SQLITE_FUNCTION:
            return _only(b, b is None or b.lower() not in _FUNCTIONS_DENIED, "The function")
        if action == apsw.SQLITE_PRAGMA:
            return self._pragma_denial((a or "").lower(), b)
        if action == apsw.SQLITE_CREATE_VTABLE:
            return _only(b, b is not None and b.lower() in _MODULES, "The virtual table module")
        if action in _FILES:
            return _NO_FILES
        if action in _TEMP:
            return _NO_TEMP
        return None

    def _pragma_denial(self, name: str, value: str | None) -> Denial | None:
        self.pragma = True
        if name in _PRAGMAS_OF or (name in _PRAGMAS_PLAIN and value is None):
            self.writes = self.writes or name == "optimize"
            return None
        if name in _PRAGMAS_OPERATOR and self.right is Right.OPERATOR:
            return None
        if name == "defer_foreign_keys" and self._connection.in_transaction:
            return None  # SQLite itself switches it off when the transaction ends
        return Denial("sql_forbidden", f"PRAGMA {name} is not available.")


def _is_reserved(name: str | None) -> bool:
    return name is not None and name[:1] == "_" and name.lower().startswith(RESERVED_TABLE_PREFIX)


def _only(name: str | None, allowed: bool, what: str) -> Denial | None:
    return None if allowed else Denial("sql_forbidden", f"{what} {name} is not available.")
