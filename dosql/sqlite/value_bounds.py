"""ValueBounds: how long a value may be while a statement runs.

One instruction of SQLite's may take as long as its values are: nothing looks at the time within
it. So on the event loop values are bounded by what the statement does with them.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from dosql.errors import BudgetError
from dosql.limits import INLINE_BULK_PAGES_MAX, INLINE_SQL_BYTES_MAX, VALUE_BYTES_MAX
from dosql.sqlite.statements import Shape


class ValueBounds:
    """One connection's."""

    def __init__(self, connection: apsw.Connection, pages: Callable[[], int]) -> None:
        """``pages``: how many the database has."""
        self.bounded: Shape | None = None
        """The last statement that ran; None: the next one has to be looked at."""
        self.length = VALUE_BYTES_MAX
        """Bytes that a value may have now."""
        self._movable = False
        self._limit = connection.limit
        self._pages = pages

    @property
    def are_tight(self) -> bool:
        """Whether a value may be refused here that a worker thread would take."""
        return self._movable and self.length < VALUE_BYTES_MAX

    def set_movable(self, movable: bool) -> None:
        """A statement that takes long here will be run again on a worker thread."""
        if movable != self._movable:
            self._movable = movable
            self.bounded = None

    def widen(self) -> None:
        """The greatest length, for what is no tenant's statement."""
        if self.length != VALUE_BYTES_MAX:
            self._set(VALUE_BYTES_MAX)

    def bound(self, shape: Shape) -> None:
        """Before a statement runs: values may be as long as it may handle here.

        Raises:
            BudgetError: the event loop is no place for what works on a table of this size.
        """
        if shape.bulk and self._movable and self._pages() > INLINE_BULK_PAGES_MAX:
            raise took_too_long()
        length = shape.inline_bytes if self._movable else shape.thread_bytes
        if length != self.length:
            self._set(length)
        self.bounded = None if shape.bulk else shape

    def check_text(self, sql: str) -> None:
        """Before a statement is prepared.

        Raises:
            BudgetError: the event loop is no place for so long a text.
        """
        if len(sql) > INLINE_SQL_BYTES_MAX and self._movable:
            raise took_too_long()
        self.widen()

    def _set(self, length: int) -> None:
        self._limit(apsw.SQLITE_LIMIT_LENGTH, length)
        self.length = length
        self.bounded = None


def took_too_long() -> BudgetError:
    """The error that has a statement run again where it may take longer."""
    return BudgetError("The statement took longer than allowed.")
