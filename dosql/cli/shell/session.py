"""Session: one tenant, at most one open transaction, and how results are printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, TypeVar

from dosql.cli.execution import Database, execute
from dosql.cli.formats import Mode, run_result_text, write_rows
from dosql.cli.shell.statements import transaction_verb
from dosql.client import Rows
from dosql.clock import Clock, SystemClock
from dosql.errors import ConflictError, DosqlError

if TYPE_CHECKING:
    from dosql.client import RunResult, Tenant, Transaction

T = TypeVar("T")


class Session:
    """Runs statements one after the other.

    BEGIN opens an interactive transaction, which later statements belong to until COMMIT or
    ROLLBACK, however many lines and seconds lie between, up to the server's own limits.
    """

    def __init__(
        self,
        tenant: Tenant,
        *,
        out: TextIO,
        err: TextIO,
        mode: Mode,
        interactive: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.tenant = tenant
        self.out = out
        self.err = err
        self.mode: Mode = mode
        self.timer = False
        self.interactive = interactive
        """Somebody watches: statements without rows say what they did."""
        self._clock = clock or SystemClock()
        self._transaction: Transaction | None = None
        self._idle_seconds = 0.0

    @property
    def in_transaction(self) -> bool:
        return self._transaction is not None

    @property
    def database(self) -> Database:
        """Where statements go: the open transaction, else the tenant."""
        return self._transaction or self.tenant

    @property
    def transaction(self) -> Transaction | None:
        return self._transaction

    def execute(self, sql: str) -> None:
        """Run one statement and print what it returns.

        Raises:
            DosqlError: with a sentence added if it ended the open transaction.
        """
        started = self._clock.monotonic()
        verb = transaction_verb(sql)
        if verb is not None:
            self._turn(verb)
        else:
            self._print(self.guard(lambda: execute(self.database, sql)))
        if self.timer:
            self.note(f"Run time: {self._clock.monotonic() - started:.3f} s")

    def guard(self, work: Callable[[], T]) -> T:
        """Do something with `database`; forgets the transaction if that turns out to be over."""
        try:
            return work()
        except DosqlError as exc:
            if self._transaction is not None and not self._transaction.is_open:
                self._transaction = None
                exc.message += (
                    " The transaction is over and was rolled back: the server waits "
                    f"{self._idle_seconds:g} s for the next statement."
                )
            raise

    def note(self, sentence: str) -> None:
        """A line for the person, which is not part of any result."""
        self.out.flush()
        print(sentence, file=self.err, flush=True)

    def close(self) -> None:
        """Roll back what is open, and say so."""
        if self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            transaction.rollback()
            self.note("The open transaction was rolled back.")

    def _turn(self, verb: str) -> None:
        if verb == "begin":
            self._begin()
            return
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            raise ConflictError("No transaction is open.", code="transaction_closed")
        if verb == "commit":
            transaction.commit()
        else:
            transaction.rollback()

    def _begin(self) -> None:
        if self._transaction is not None:
            raise ConflictError("A transaction is open already.", code="transaction_open")
        transaction = self.tenant.transaction()
        transaction.open()
        self._transaction = transaction
        self._idle_seconds = transaction.idle_seconds

    def _print(self, result: Rows | RunResult) -> None:
        if isinstance(result, Rows):
            if result.columns:
                write_rows(result, self.mode, self.out)
        elif self.interactive:
            self.note(run_result_text(result))
