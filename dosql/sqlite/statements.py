"""What is known of a statement before its first step, and the handle of a prepared one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from dosql.errors import InvalidRequestError
from dosql.sqlite.costs import value_limits
from dosql.sqlite.rows import Row, RunResult
from dosql.sqlite.sandbox import INTERNAL_PREPARE_FLAGS, Right, Sandbox
from dosql.wire.values import Params, SqlValue

if TYPE_CHECKING:
    from dosql.sqlite.database import Database

STATEMENTS_MAX = 100
"""Prepared statements kept per connection: APSW's own default, about 1 to 5 KB each."""

UNBOUND: Any = apsw._null_bindings  # type: ignore[attr-defined]  # pyright: ignore
"""Stands for any parameters: APSW's own tools inspect statements with it."""

_VIRTUAL_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage = 0"

# Space as SQLite knows it. Atomic groups: a comment must not stretch over the SQL after it.
_BLANK = re.compile(r"(?>[ \t\n\f\r\ufeff;]|--[^\n]*|/\*.*?(?:\*/|\Z))*+", re.DOTALL)


class Shape(msgspec.Struct, frozen=True):
    """What a statement is; true until the schema changes."""

    text: str
    """The statement without the comments after it."""
    columns: tuple[str, ...]
    """Names of the columns it returns; empty: it returns none."""
    read_only: bool
    check_after: bool
    """It may make what the sandbox does not see."""
    schema: bool
    creates: bool
    """It adds to the schema."""
    plain_read: bool
    """Reads and returns rows: needs no guard."""
    plain_write: bool
    """Writes rows and returns none: SQLite undoes it by itself when it fails."""
    parameters: int
    """How many values it takes."""
    inline_bytes: int
    """Of a value, on the event loop; see `value_limits`."""
    thread_bytes: int
    """Of a value, anywhere else."""
    bulk: bool
    """One of its instructions may work on a whole table."""
    scans: bool | None = None
    """Its plan steps through a whole table; None: nobody looked yet."""


class Inspector:
    """Prepares statements without running them, and remembers what they are."""

    def __init__(self, connection: apsw.Connection, sandbox: Sandbox) -> None:
        self.known: dict[str, Shape] = {}
        """Statements that were allowed and whose shape depends on nothing but the schema."""
        self._sandbox = sandbox
        self._connection = connection
        self._sql = ""
        self._virtuals: frozenset[str] = frozenset()
        self._seen: list[Shape] = []

    def inspect(self, sql: str) -> Shape:
        """Prepare one statement and say what it is; nothing of it runs.

        Raises:
            InvalidRequestError: ``sql_empty``, ``sql_multiple_statements``, ``invalid_encoding``.
            apsw.Error: SQLite, or the sandbox, refused it.
        """
        shape, rest = self.inspect_first(sql)
        if rest:
            raise InvalidRequestError(
                "Only one statement is allowed; use /transaction for several.",
                code="sql_multiple_statements",
            )
        return shape

    def inspect_first(self, sql: str) -> tuple[Shape, str]:
        """The same for the first of several; and the text behind it, empty if that is blank."""
        check_text(sql)
        if not self.known:  # the schema may be another one
            self._look_at_virtual_tables()
        shape = self._prepare(sql, can_cache=True)
        if not self._sandbox.asked:
            # It came out of the cache, so the sandbox saw nothing: ask again.
            shape = self._prepare(sql, can_cache=False)
        rest = sql[len(shape.text) :]
        if rest and not is_blank(rest):
            return shape, rest
        if not self._sandbox.pragma:
            if len(self.known) >= STATEMENTS_MAX:
                del self.known[next(iter(self.known))]
            self.known[sql] = shape
        return shape, ""

    def _prepare(self, sql: str, *, can_cache: bool) -> Shape:
        cursor = self._connection.cursor()
        cursor.exec_trace = self._on_prepared
        self._sql = sql
        self._seen.clear()
        self._sandbox.watch(sql)
        try:
            cursor.execute(sql, UNBOUND, can_cache=can_cache)
        except apsw.ExecTraceAbort:
            pass  # as `_on_prepared` wants it
        finally:
            cursor.close(True)  # puts the statement into the cache, for its execution
            self._sandbox.prepared()
        return self._seen.pop()

    def _value_limits(self, text: str) -> tuple[int, int]:
        sandbox = self._sandbox
        opcodes: list[str] | None = None
        if sandbox.nested:
            functions = sandbox.functions.copy()
            flags = sandbox.alters, sandbox.schema, sandbox.pragma, sandbox.writes
            bulk, tables = sandbox.bulk, sandbox.tables.copy()
            opcodes = self._opcodes(text)
            sandbox.bulk = bulk or "Clear" in opcodes
            sandbox.tables |= tables
            sandbox.functions[:] = functions
            sandbox.alters, sandbox.schema, sandbox.pragma, sandbox.writes = flags
        return value_limits(text, sandbox.functions, opcodes)

    def _look_at_virtual_tables(self) -> None:
        sandbox = self._sandbox
        right, sandbox.right = sandbox.right, Right.INTERNAL
        try:
            found = self._connection.execute(
                _VIRTUAL_TABLES, prepare_flags=INTERNAL_PREPARE_FLAGS
            ).fetchall()
        finally:
            sandbox.right = right
        self._virtuals = frozenset(str(name) for (name,) in found)

    def _opcodes(self, text: str) -> list[str]:
        # An EXPLAIN already, or of the greatest length; or with a constant that is not text.
        with suppress(apsw.Error, UnicodeDecodeError):
            program = self._connection.execute(f"EXPLAIN {text}", UNBOUND, can_cache=False)
            return [str(step[1]) for step in program]
        return []

    def _on_prepared(self, cursor: apsw.Cursor, text: str, bindings: object) -> bool:
        """APSW's trace: after prepare, before the first step. False: do not run it."""
        if not cursor.has_vdbe:
            raise InvalidRequestError("There is no statement in the SQL text.", code="sql_empty")
        sandbox = self._sandbox
        columns = tuple([entry[0] for entry in cursor.get_description()])
        read_only = (cursor.is_readonly or cursor.is_explain > 0) and not sandbox.writes
        inline_bytes, thread_bytes = self._value_limits(text)
        self._seen.append(
            Shape(
                text=text,
                columns=columns,
                read_only=read_only,
                check_after=sandbox.check_after,
                schema=sandbox.schema,
                creates=sandbox.creates,
                plain_read=read_only and bool(columns),
                plain_write=not read_only and not columns and not sandbox.schema,
                parameters=cursor.bindings_count,
                inline_bytes=inline_bytes,
                thread_bytes=thread_bytes,
                bulk=sandbox.bulk or not sandbox.tables.isdisjoint(self._virtuals),
            )
        )
        return False


def check_text(sql: str) -> None:
    """Raises InvalidRequestError (``invalid_encoding``) for a NUL: SQLite would stop there."""
    if "\0" in sql:
        raise InvalidRequestError("The SQL text holds a NUL character.", code="invalid_encoding")


def is_blank(sql: str) -> bool:
    """Whether there is nothing but space, semicolons and comments."""
    return _BLANK.fullmatch(sql) is not None


class Statement:
    """A statement prepared for many calls. Parameters are given one by one, or as one mapping."""

    def __init__(self, database: Database, sql: str, columns: tuple[str, ...]) -> None:
        self.sql = sql
        self.columns = columns
        """Names of the columns it returns; empty: it returns none."""
        self._database = database

    def all(self, *params: SqlValue | Mapping[str, SqlValue]) -> list[Row]:
        """All rows."""
        return self._database.query(self.sql, _as_params(params)).rows

    def get(self, *params: SqlValue | Mapping[str, SqlValue]) -> Row | None:
        """The first row; the rest is not computed."""
        rows = self._database.query_one(self.sql, _as_params(params)).rows
        return rows[0] if rows else None

    def run(self, *params: SqlValue | Mapping[str, SqlValue]) -> RunResult:
        """Execute a statement that writes."""
        return self._database.run(self.sql, _as_params(params))

    def iterate(self, *params: SqlValue | Mapping[str, SqlValue]) -> Iterator[Row]:
        """The rows one by one, without a limit on their number.

        The database cannot be checkpointed while the iterator is open: exhaust or close it.
        """
        return self._database.iterate(self.sql, _as_params(params))


def _as_params(params: tuple[SqlValue | Mapping[str, SqlValue], ...]) -> Params:
    if len(params) == 1 and isinstance(params[0], Mapping):
        return params[0]
    return params  # type: ignore[return-value]
