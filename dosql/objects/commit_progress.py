"""CommitProgress: how far the commits of one object have got, in the log and beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from dosql.errors import DosqlError
from dosql.log.waiters import Waiters


class Replication(Protocol):
    """Where commits go beside the log, if whoever waits is to wait for that."""

    shipped_txid: int | None
    """Newest batch that has arrived; None: not known yet."""
    failed: DosqlError | None
    on_moved: Callable[[], None]
    """Called when one of these has changed."""

    @property
    def refusal(self) -> DosqlError | None:
        """Why nothing may be written now."""
        ...


class CommitProgress:
    """``on_moved`` is called when something has become durable, ``on_failed`` when nothing will
    any more."""

    def __init__(
        self,
        txid: int,
        replication: Replication | None,
        *,
        on_moved: Callable[[], None],
        on_failed: Callable[[DosqlError], None],
    ) -> None:
        """``txid`` is in the log already. ``replication``: what a commit must reach beside it."""
        self.logged_txid = txid
        """Newest batch the log has acknowledged."""
        self._replication = replication
        self._on_moved = on_moved
        self._on_failed = on_failed
        self._waiters = Waiters()
        self.durable_txid = self._reached()
        """Newest batch that whoever waits is told of: it is where its durability mode wants it."""
        if replication is not None:
            replication.on_moved = self._replicated

    @property
    def is_beyond_log(self) -> bool:
        """Whether a commit must reach more than the log."""
        return self._replication is not None

    @property
    def refusal(self) -> DosqlError | None:
        """Why nothing may be written now."""
        return None if self._replication is None else self._replication.refusal

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a commit to arrive beyond the log."""
        return bool(self._waiters)

    def logged(self, txid: int) -> None:
        """The log has everything up to this batch."""
        self.logged_txid = txid
        self._move()

    async def arrived(self, txid: int, seconds: float) -> None:
        """Return when everything up to ``txid`` is durable. Raises as `Waiters.wait`."""
        if self.durable_txid < txid:
            await self._waiters.wait(txid, seconds)

    def fail(self, error: DosqlError) -> None:
        """Nothing more will arrive."""
        self._waiters.fail(error)

    def _replicated(self) -> None:
        assert self._replication is not None
        if self._replication.failed is not None:
            self._on_failed(self._replication.failed)
        else:
            self._move()

    def _move(self) -> None:
        self.durable_txid = self._reached()
        self._waiters.arrived(self.durable_txid)
        self._on_moved()

    def _reached(self) -> int:
        if self._replication is None:
            return self.logged_txid
        return min(self.logged_txid, self._replication.shipped_txid or 0)
