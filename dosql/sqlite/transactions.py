"""Transactions and savepoints: how several statements become one, and how they are undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dosql.errors import ConflictError
from dosql.limits import RESERVED_TABLE_PREFIX
from dosql.sqlite.connection import Connection, aborted

if TYPE_CHECKING:
    from dosql.sqlite.capture import Capture

_SAVEPOINT = f"{RESERVED_TABLE_PREFIX}savepoint"
"""One name for all: SQLite takes the innermost of that name."""


def _unnumbered() -> int:
    return 0


class Transactions(Connection):
    """A connection whose statements can be bound together.

    SQLite may end a transaction on its own: ``OR ROLLBACK``, ``RAISE(ROLLBACK)``, an interrupted
    write, a full disk. After that everything but `rollback` is refused with ConflictError
    ``transaction_aborted``, so that no later statement commits by itself.
    """

    next_txid: Callable[[], int] = staticmethod(_unnumbered)
    """The number of the batch that the next commit will be in."""
    _capture: Capture | None = None

    @property
    def capture(self) -> Capture | None:
        """The capture of changes; None: they are not captured."""
        return self._capture

    def install(self, capture: Capture | None) -> None:
        """Outside of a transaction: capture changes from now on; None: no more."""
        connection = self._connection
        self._capture = capture
        connection.preupdate_hook(None if capture is None else capture.on_change)
        # Statements prepared before would still truncate tables: this has all prepared anew.
        connection.authorizer = self._sandbox

    def begin(self) -> None:
        """Open a transaction.

        Raises:
            ConflictError: ``transaction_open``: there is one already.
        """
        if self._refusal is not None:
            self._refuse()
        if self._connection.in_transaction:
            raise ConflictError("A transaction is open already.", code="transaction_open")
        self._control("BEGIN IMMEDIATE")
        self._begun = True
        self._connection.set_last_insert_rowid(0)
        if self._capture is not None:
            self._capture.begun()

    def commit(self) -> None:
        """Commit the open transaction. After an error it is rolled back.

        Raises:
            ConflictError: ``transaction_aborted``: SQLite ended it before.
            ConstraintError: a deferred foreign key is violated.
        """
        if self._refusal is not None:
            self._refuse()
        if not self._connection.in_transaction:
            raise aborted("transaction_aborted")
        capture = self._capture
        try:
            if capture is not None:
                capture.store()
            self._control("COMMIT")
        except BaseException:
            self.rollback()
            raise
        self._begun = False
        self._schema_touched = False
        if capture is not None:
            capture.committed()

    def rollback(self) -> None:
        """Undo the open transaction; without one, nothing."""
        self._forget_shapes()
        try:
            if self._connection.in_transaction and self.broken is None:
                self._control("ROLLBACK")
        finally:
            self._begun = False
            self._schema_touched = False
            self._refusal = self.broken
            if self._capture is not None:
                self._capture.rolled_back()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE ... COMMIT; any exception rolls back.

        Raises:
            ConflictError: ``batch_aborted``: SQLite ended the transaction meanwhile.
        """
        self.begin()
        try:
            yield
            self._close(nested=False)
        except BaseException:
            self.rollback()
            raise

    def savepoint(self) -> Savepoint:
        """A part that may be undone alone: any exception takes it back. May be nested; outside
        a transaction it is one.

        Raises:
            ConflictError: ``batch_aborted``: SQLite ended the transaction meanwhile.
        """
        return Savepoint(self)

    # --- for Database and Savepoint ------------------------------------------------------

    def _open(self) -> bool:
        """Begin a transaction, or a savepoint in the open one; True for the latter."""
        if self._refusal is not None:
            self._refuse()
        if not self._connection.in_transaction:
            self.begin()
            return False
        self._control(f"SAVEPOINT {_SAVEPOINT}")
        if self._capture is not None:
            self._capture.mark()
        return True

    def _close(self, *, nested: bool) -> None:
        self._check_still_open()
        if nested:
            self._control(f"RELEASE {_SAVEPOINT}")
            if self._capture is not None:
                self._capture.release()
        else:
            self.commit()

    def _undo(self, *, nested: bool) -> None:
        if nested:
            self._roll_back_to(_SAVEPOINT)
            if self._capture is not None:
                self._capture.undo()
        else:
            self.rollback()

    def _roll_back_to(self, name: str) -> None:
        self._forget_shapes()
        if self._connection.in_transaction and self.broken is None:
            self._control(f"ROLLBACK TO {name}")
            self._control(f"RELEASE {name}")

    def _check_still_open(self) -> None:
        if not self._connection.in_transaction:
            raise aborted("batch_aborted")


class Savepoint:
    """See `Transactions.savepoint`. One that is given up half-way, because the whole connection is,
    leaves it alone: a generator would use it when its memory is freed, at whatever time."""

    __slots__ = ("_connection", "_nested")

    def __init__(self, connection: Transactions) -> None:
        self._connection = connection
        self._nested = False

    def __enter__(self) -> None:
        self._nested = self._connection._open()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._connection._undo(nested=self._nested)
            return
        try:
            self._connection._close(nested=self._nested)
        except BaseException:
            self._connection._undo(nested=self._nested)
            raise
