"""The one place where SQLite's errors become ours.

Messages are SQLite's own sentence about the sender's statement; never a path, and never more
than a fixed sentence about files, disks and the server's own state.
"""

from __future__ import annotations

import os
import re

import apsw

from dosql.errors import (
    BudgetError,
    ConflictError,
    ConstraintError,
    CorruptError,
    DosqlError,
    ForbiddenError,
    InvalidRequestError,
    LimitError,
    OverloadedError,
    QuotaError,
    SqlError,
    UnavailableError,
)
from dosql.sqlite.sandbox import Denial

_CONSTRAINTS = {
    apsw.SQLITE_CONSTRAINT_CHECK: "constraint_check",
    apsw.SQLITE_CONSTRAINT_DATATYPE: "constraint_datatype",
    apsw.SQLITE_CONSTRAINT_FOREIGNKEY: "constraint_foreign_key",
    apsw.SQLITE_CONSTRAINT_NOTNULL: "constraint_not_null",
    apsw.SQLITE_CONSTRAINT_PRIMARYKEY: "constraint_primary_key",
    apsw.SQLITE_CONSTRAINT_ROWID: "constraint_primary_key",
    apsw.SQLITE_CONSTRAINT_TRIGGER: "constraint_trigger",
    apsw.SQLITE_CONSTRAINT_UNIQUE: "constraint_unique",
}

_FIXED: dict[type[Exception], tuple[type[DosqlError], str, str]] = {
    apsw.AbortError: (
        ConflictError,
        "transaction_aborted",
        "The statement was ended by the rollback of its transaction.",
    ),
    apsw.BusyError: (OverloadedError, "object_busy", "The database is in use."),
    apsw.CantOpenError: (
        UnavailableError,
        "object_recovering",
        "The database cannot be opened now; it is being recovered.",
    ),
    apsw.CorruptError: (CorruptError, "object_corrupt", "The database file is damaged."),
    apsw.IOError: (
        UnavailableError,
        "object_recovering",
        "Reading or writing the database failed; it is being recovered.",
    ),
    apsw.LockedError: (
        OverloadedError,
        "object_busy",
        "A statement that is still being read stands in the way.",
    ),
    apsw.NotADBError: (CorruptError, "object_corrupt", "The file is not a SQLite database."),
    apsw.ReadOnlyError: (ForbiddenError, "read_only", "The database is read-only."),
    MemoryError: (BudgetError, "memory_limit", "The statement ran out of memory."),
    RecursionError: (SqlError, "statement_too_complex", "The statement is too complex."),
}

_PROTECTED = re.compile(r"^table \S+ may not be (?:modified|dropped|altered|indexed)$")
"""SQLite's own refusal, of its schema and of what virtual tables keep."""

_DISK_RESERVE_BYTES = 1024 * 1024
"""With less room than this on the disk, "full" means the disk and not the quota."""

_BREAKING = (apsw.CantOpenError, apsw.CorruptError, apsw.IOError, apsw.NotADBError)


def is_breaking(error: Exception) -> bool:
    """Whether the connection must not be used again after this error."""
    return isinstance(error, _BREAKING)


def is_disk_full(folder: str) -> bool:
    """Whether it is the disk that has no room left for a file in this folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _DISK_RESERVE_BYTES


def translate(
    error: Exception,
    *,
    sql: str = "",
    preparing: bool = False,
    expired: bool = False,
    no_space: bool = False,
    denial: Denial | None = None,
) -> DosqlError | None:
    """Our error for one that SQLite, or the conversion of values, raised; None: not foreseen.

    ``preparing``: no step was made yet. ``expired``: the deadline has passed. ``no_space``: the
    disk has no room left. ``denial``: what the sandbox refused last.
    """
    if isinstance(error, DosqlError):
        return error
    fixed = _FIXED.get(type(error))
    if fixed is not None:
        kind, code, message = fixed
        return kind(message, code=code, sqlite_code=sqlite_code(error))
    if isinstance(error, apsw.InterruptError):
        return _interrupted(expired)
    if isinstance(error, apsw.FullError):
        return _full(no_space)
    if type(error) is apsw.SQLError and _PROTECTED.search(str(error)) is not None:
        return ForbiddenError(str(error), code="sql_forbidden", sqlite_code=sqlite_code(error))
    if isinstance(error, apsw.AuthError) or (preparing and denial and type(error) is apsw.SQLError):
        return _denied(error, denial)  # a function that is denied comes as a plain SQLError
    if isinstance(error, apsw.NoMemError):
        return _no_memory(error, preparing)
    if isinstance(error, apsw.ConstraintError):
        code = _CONSTRAINTS.get(_extended(error), "constraint_violation")
        return ConstraintError(str(error), code=code, sqlite_code=sqlite_code(error))
    if isinstance(error, apsw.TooBigError):
        return LimitError(
            "The statement is too long." if preparing else "A value is too large.",
            code="statement_too_large" if preparing else "value_too_large",
            sqlite_code="SQLITE_TOOBIG",
        )
    if isinstance(error, (apsw.SQLError, apsw.MismatchError, apsw.RangeError)):
        offset = int(getattr(error, "error_offset", -1))
        return SqlError(
            str(error), sqlite_code=sqlite_code(error), offset=offset if offset >= 0 else None
        )
    return _conversion(error, sql)


def sqlite_code(error: Exception) -> str | None:
    """SQLite's extended result code by name; None for errors that are not SQLite's."""
    extended = _extended(error)
    if extended == 0:
        return None
    name = apsw.mapping_extended_result_codes.get(extended)
    return str(name or apsw.mapping_result_codes.get(extended & 0xFF, "SQLITE_ERROR"))


def _extended(error: Exception) -> int:
    return int(getattr(error, "extendedresult", 0))


def _interrupted(expired: bool) -> DosqlError:
    if expired:
        return BudgetError(
            "The statement took longer than allowed.", sqlite_code="SQLITE_INTERRUPT"
        )
    return UnavailableError(
        "The statement was interrupted.", code="interrupted", sqlite_code="SQLITE_INTERRUPT"
    )


def _full(no_space: bool) -> QuotaError:
    if no_space:
        return QuotaError("The disk is full.", code="disk_full", sqlite_code="SQLITE_FULL")
    return QuotaError("The database has reached its quota.", sqlite_code="SQLITE_FULL")


def _denied(error: Exception, denial: Denial | None) -> ForbiddenError:
    if denial is None:
        return ForbiddenError(str(error), code="sql_forbidden", sqlite_code="SQLITE_AUTH")
    return ForbiddenError(denial.message, code=denial.code, sqlite_code="SQLITE_AUTH")


def _no_memory(error: apsw.NoMemError, preparing: bool) -> DosqlError:
    if preparing:  # SQLite's answer to a statement of more than VDBE_OPS_MAX instructions
        return SqlError(
            "The statement is too complex.",
            code="statement_too_complex",
            sqlite_code=sqlite_code(error),
        )
    return BudgetError(
        "The statement ran out of memory.", code="memory_limit", sqlite_code=sqlite_code(error)
    )


def _conversion(error: Exception, sql: str) -> DosqlError | None:
    """Python's own errors on the way into and out of SQLite."""
    if isinstance(error, UnicodeDecodeError):
        return SqlError(
            "A text value in the result is not valid UTF-8; CAST it to BLOB.", code="invalid_text"
        )
    if isinstance(error, UnicodeEncodeError):
        if error.object == sql:
            return InvalidRequestError(
                "The SQL text holds a lone surrogate.", code="invalid_encoding"
            )
        return _bad_parameter("A parameter holds a lone surrogate, which is not text.")
    if isinstance(error, apsw.BindingsError):
        return _bad_parameter(str(error).partition("  Current offset")[0].replace("  ", " "))
    if isinstance(error, KeyError):
        return _bad_parameter(f"The parameter {error.args[0]!r} is missing.")
    if isinstance(error, OverflowError):
        return _bad_parameter("An integer does not fit into 64 bits.")
    if isinstance(error, TypeError):
        return _bad_parameter("A parameter is not null, a number, text or bytes.")
    return None


def _bad_parameter(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, code="invalid_parameter")
