"""Budget: what the statements of one turn may still use, time and memory, and who stops them."""

from __future__ import annotations

import threading

import apsw

from dosql.clock import Clock
from dosql.limits import PROGRESS_STEPS, PROGRESS_STEPS_ON_THREAD, STATEMENT_HEAP_BYTES_MAX
from dosql.sqlite.watchdog import WATCHDOG


class Budget:
    """One connection's. SQLite asks it every so many steps; the watchdog knows it too."""

    def __init__(self, connection: apsw.Connection, clock: Clock) -> None:
        self.watch = 0
        """Which deadline the watchdog knows of; 0: none."""
        self.expired = False
        """Something was interrupted for its time."""
        self.too_much = False
        """Something was interrupted for its memory."""
        self.committed = False
        """The running statement has been committed: it is too late to interrupt it."""
        self._connection = connection
        self._monotonic = clock.monotonic
        self._deadline: float | None = None
        self._heap_max = 0
        self._controlling = threading.Lock()
        self._steps = PROGRESS_STEPS
        connection.set_progress_handler(self.is_spent, PROGRESS_STEPS)
        connection.set_commit_hook(self._before_commit, id=self._before_commit)

    def set(self, seconds: float | None, *, on_thread: bool) -> None:
        """So many seconds from now on; None: no deadline. ``on_thread``: beside the event loop,
        where statements are looked at less often, by the watchdog too, and their memory counts."""
        self.watch = 0
        steps = PROGRESS_STEPS_ON_THREAD if on_thread else PROGRESS_STEPS
        if steps != self._steps:
            self._steps = steps
            self._connection.set_progress_handler(self.is_spent, steps)
        self.expired = self.too_much = self.committed = False
        self._deadline = None if seconds is None else self._monotonic() + seconds
        if on_thread and seconds is not None:
            self._heap_max = apsw.memory_used() + STATEMENT_HEAP_BYTES_MAX
            WATCHDOG.watch(self, seconds)
        else:
            self._heap_max = 0

    def suspend(self) -> float | None:
        """No deadline for what runs next; the result is for `resume`."""
        with self._controlling:  # the watchdog looks at it and interrupts in one go
            deadline, self._deadline = self._deadline, None
        return deadline

    def resume(self, deadline: float | None) -> None:
        """The deadline holds again."""
        self._deadline = deadline

    def end(self) -> None:
        """Nothing runs any more, and nothing will: the connection is about to be closed."""
        with self._controlling:  # the watchdog may be about to interrupt what ran here last
            self.watch = self._heap_max = 0
            self._deadline = None

    def stop_overdue(self) -> None:
        """Interrupt what runs, if it is past its deadline. Callable from any thread."""
        with self._controlling:
            if self.is_spent():
                self._connection.interrupt()

    def is_spent(self) -> bool:
        """SQLite's progress callback: True interrupts the statement.

        SQLite calls it once more behind the last step of a statement, and would report one as
        interrupted that has just been committed.
        """
        if self.committed:
            return False
        if self._heap_max and apsw.memory_used() > self._heap_max:
            self.too_much = True
            return True
        deadline = self._deadline
        if deadline is None or self._monotonic() < deadline:
            return False
        self.expired = True
        return True

    def _before_commit(self) -> bool:
        """SQLite's commit hook: from here to the end of the statement nothing may stop it."""
        self.committed = True
        return False
