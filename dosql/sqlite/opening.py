"""How a connection is opened: every flag, limit and PRAGMA of a tenant's database, in one place."""

from __future__ import annotations

import apsw

from dosql import limits
from dosql.errors import UnavailableError
from dosql.sqlite.functions import override

# Never SQLITE_OPEN_URI: a name is never more than a path.
_ALWAYS = apsw.SQLITE_OPEN_NOFOLLOW | apsw.SQLITE_OPEN_EXRESCODE
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | _ALWAYS
_READ_ONLY_FLAGS = apsw.SQLITE_OPEN_READONLY | _ALWAYS

_CONFIG = (
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0),
    (apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1),
    (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0),
    (apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1),
)

_LIMITS = (
    (apsw.SQLITE_LIMIT_LENGTH, limits.VALUE_BYTES_MAX),
    (apsw.SQLITE_LIMIT_SQL_LENGTH, limits.SQL_BYTES_MAX),
    (apsw.SQLITE_LIMIT_COLUMN, limits.COLUMNS_MAX),
    (apsw.SQLITE_LIMIT_EXPR_DEPTH, limits.EXPRESSION_DEPTH_MAX),
    (apsw.SQLITE_LIMIT_COMPOUND_SELECT, limits.COMPOUND_SELECT_MAX),
    (apsw.SQLITE_LIMIT_VDBE_OP, limits.VDBE_OPS_MAX),
    (apsw.SQLITE_LIMIT_FUNCTION_ARG, limits.FUNCTION_ARGS_MAX),
    (apsw.SQLITE_LIMIT_ATTACHED, 0),
    (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, limits.LIKE_PATTERN_BYTES_MAX),
    (apsw.SQLITE_LIMIT_VARIABLE_NUMBER, limits.VARIABLES_MAX),
    (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, limits.TRIGGER_DEPTH_MAX),
    (apsw.SQLITE_LIMIT_WORKER_THREADS, 0),
    (apsw.SQLITE_LIMIT_PARSER_DEPTH, limits.PARSER_DEPTH_MAX),
)

MEMORY = ":memory:"
"""The path of a database that has no file: of `dosql.testing` only, for it has no -wal to log."""

_ANALYSIS_ROWS_MAX = 1_000
"""Rows that ANALYZE looks at per index, so that it ends."""


def open_connection(path: str, vfs: str | None, *, statements_max: int) -> apsw.Connection:
    """Open, or create, the database file for this process alone.

    Raises apsw.Error, or UnavailableError when the file cannot be put into WAL mode. After an
    error nothing is left open.
    """
    connection = apsw.Connection(path, flags=_FLAGS, vfs=vfs, statementcachesize=statements_max)
    try:
        _protect(connection)
        _set_journal(connection, "memory" if path == MEMORY else "wal")
        _tune(connection)
    except BaseException:
        connection.close(True)
        raise
    return connection


def open_read_only(path: str, *, statements_max: int) -> apsw.Connection:
    """Open a database at rest, whose header says that it has no WAL; no other file is made or
    looked for beside it. Any number of connections may read it at a time. Raises apsw.Error."""
    connection = apsw.Connection(path, flags=_READ_ONLY_FLAGS, statementcachesize=statements_max)
    try:
        _protect(connection)
        _tune(connection)
    except BaseException:
        connection.close(True)
        raise
    return connection


def _protect(connection: apsw.Connection) -> None:
    if apsw.hard_heap_limit(-1) != limits.HEAP_BYTES_MAX:
        apsw.hard_heap_limit(limits.HEAP_BYTES_MAX)
    for option, value in _CONFIG:
        if connection.config(option, value) != value:
            raise AssertionError(f"SQLite did not take option {option}")
    for limit, value in _LIMITS:
        connection.limit(limit, value)
        if connection.limit(limit) != value:
            raise AssertionError(f"SQLite did not take limit {limit}")


def _set_journal(connection: apsw.Connection, journal_mode: str) -> None:
    # Exclusive before WAL: the index of the log then lives in memory, not in a -shm file, and no
    # lock is taken per statement. The host locks the whole data directory.
    connection.pragma("locking_mode", "EXCLUSIVE")
    connection.pragma("synchronous", "OFF")  # the commit log makes writes durable, not SQLite
    if connection.pragma("journal_mode", "WAL") != journal_mode:
        raise UnavailableError("The database is not in WAL mode.", code="object_recovering")
    connection.wal_autocheckpoint(0)


def _tune(connection: apsw.Connection) -> None:
    connection.pragma("cache_size", -limits.SQLITE_CACHE_KIB)
    # Sorts and temporary b-trees beyond the cache spill to a file: one tenant's ORDER BY must
    # not take the memory of all. The file is unlinked and made only when it is needed.
    connection.pragma("temp_store", "FILE")
    connection.pragma("analysis_limit", _ANALYSIS_ROWS_MAX)
    override(connection)
