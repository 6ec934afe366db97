"""What the client of a ``fetch`` is told of an error that the program let through.

- A program's own exception, and a statement that SQLite refused: nothing. 500 ``Internal error``.
- An error of dosql that the program raised itself: all of it, for it was meant.
- An error that dosql raised says who made the mistake. ``ctx`` and SQLite only ever refuse what the
  program did: nothing. All else is about the request (its JSON, an object's name, the arguments of
  a method), or about the moment (overload, a reset, no room left): all of it.

The log has what was not told, with the request's id.
"""

from __future__ import annotations

from dosql.errors import DosqlError, InternalError, ObjectError, QuotaError, RequestError, SqlError

_REFUSE_THE_PROGRAM = ("dosql.objects.", "dosql.sqlite.")
"""Modules behind ``ctx``."""
_REFUSE_THE_CALL = frozenset(
    {
        "dosql.objects.events",
        "dosql.objects.idempotency",
        "dosql.objects.rpc",
    }
)
"""Modules on the way to an object."""


def shown_error(exc: Exception) -> DosqlError:
    """The error that the client gets, with ``exc`` as its cause if it is another one."""
    if isinstance(exc, DosqlError) and not _is_of_the_program(exc):
        return exc
    error = InternalError("Internal error")
    error.__cause__ = exc
    return error


def _is_of_the_program(error: DosqlError) -> bool:
    """Whether the client could do nothing about it, and was not meant to see it."""
    if isinstance(error, SqlError | ObjectError):
        return True
    if not isinstance(error, RequestError) or isinstance(error, QuotaError) or error.retryable:
        return False
    if error.code == "invalid_response":
        return True
    module = _raised_in(error)
    return module.startswith(_REFUSE_THE_PROGRAM) and module not in _REFUSE_THE_CALL


def _raised_in(error: DosqlError) -> str:
    """The module whose code raised it: where its traceback ends."""
    traceback = error.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    module: object = traceback.tb_frame.f_globals.get("__name__")
    return module if isinstance(module, str) else ""
