"""Commits: when what an object's code wrote is committed, and what waits for it.

The first write of a step opens a transaction, the *implicit* one, and the end of the step commits
it. What cannot be committed resets the object: its memory would know of something that is not
stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dosql.bookmarks import Bookmark
from dosql.errors import DosqlError, ObjectResetError

if TYPE_CHECKING:
    from dosql.objects.activation import Activation


class Commits:
    """Those of one activation. ``before_commit`` is called within each step that wrote; what it
    raises undoes the step."""

    def __init__(self, activation: Activation, before_commit: Callable[[], None]) -> None:
        self._activation = activation
        self._before_commit = before_commit
        self._implicit = False
        """The implicit transaction is open."""
        self._confirm = False
        """It holds a write that what leaves must wait for."""

    def expect(self, *, confirmed: bool) -> None:
        """Something is about to be written in this step."""
        if not self._implicit:
            self._activation.ground.db.begin()
            self._implicit = True
        self._confirm = self._confirm or confirmed

    def settle(self) -> None:
        """The step is over: commit its transaction, and say what waits for it."""
        activation = self._activation
        if self._implicit:
            self._implicit = False
            confirm, self._confirm = self._confirm, False
            self.commit(activation.ground.db.commit, confirm=confirm)
        else:
            activation.ground.after_work()
        if activation.ended is None and not self.in_doubt:
            activation.gate.decided()

    def commit(self, commit: Callable[[], None], *, confirm: bool) -> None:
        """Call ``commit``; whatever keeps it from happening resets the object."""
        activation = self._activation
        try:
            if not activation.ground.db.in_transaction:
                raise ObjectResetError(
                    "The object was reset: SQLite rolled the transaction of its event back."
                )
            self._before_commit()
            commit()
        except DosqlError as error:
            activation.reset(_at_commit(error))
            return
        self.happened(confirm=confirm)

    def happened(self, *, confirm: bool) -> None:
        """Something was committed. ``confirm``: what leaves the object waits for it."""
        activation = self._activation
        activation.ground.after_work()
        if confirm and activation.ended is None:
            activation.gate.committed(activation.ground.bookmark.txid)

    def forget(self) -> None:
        """What was not committed is undone."""
        self._implicit = False

    @property
    def is_begun(self) -> bool:
        """Whether this step wrote something that is not committed yet."""
        return self._implicit

    @property
    def in_doubt(self) -> bool:
        """Whether a transaction is open of which nobody knows yet whether it will be committed."""
        return self._implicit or self._activation.sections.in_transaction

    @property
    def bookmark(self) -> Bookmark:
        """The state with everything written so far, once its transaction is committed."""
        ground = self._activation.ground
        if not self.in_doubt:
            return ground.bookmark
        return Bookmark(ground.txid + 1, ground.key.incarnation)


def _at_commit(error: DosqlError) -> DosqlError:
    if isinstance(error, ObjectResetError):
        return error
    reset = ObjectResetError(
        "The object was reset: what its event wrote since it last waited could not be committed, "
        f"and is undone: {error.message}"
    )
    reset.__cause__ = error
    return reset
