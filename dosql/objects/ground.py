"""Ground: what a durable object's code stands on: an awake database, its turns, its durability.

`Instance` is the real one, over a file and the node's commit log; `dosql.testing` has one in
memory. Whatever runs user code works with this protocol and knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from dosql.bookmarks import Bookmark
from dosql.errors import DosqlError
from dosql.log.records import ObjectKey
from dosql.objects.turns import Turns
from dosql.points import Point
from dosql.sqlite.database import Database

T = TypeVar("T")


class Past(Protocol):
    """The states that objects had."""

    async def bookmark_at(self, key: ObjectKey, point: Point) -> Bookmark:
        """The state at this point, which can be restored: the newest that is not younger.

        Raises:
            NotFoundError: ``restore_point_not_found``.
            UnavailableError: the bucket cannot be asked.
        """
        ...


class Ground(Protocol):
    """All of it belongs to the event loop."""

    key: ObjectKey
    db: Database
    turns: Turns
    """Whoever uses ``db`` holds the turn."""
    closed: bool
    broken: DosqlError | None
    used_at: float
    """When the last event came, on the monotonic clock."""
    past: Past | None
    """None: nothing of the past is kept."""
    pins: int
    """Events and background work under way: while there are any, the object is not put to sleep."""
    txid: int
    """Newest batch handed over to be made durable; what was committed since is the next one."""
    on_durable: Callable[[], None]
    """Called when ``durable_txid`` has moved, and when the ground broke."""

    @property
    def durable_txid(self) -> int:
        """Newest batch that is durable."""
        ...

    @property
    def bookmark(self) -> Bookmark:
        """The state after the newest commit; durable once `durable` returns."""
        ...

    @property
    def statement_s(self) -> float:
        """What one piece of work may take on a worker thread, in seconds."""
        ...

    def check_open(self) -> None:
        """Raises InstanceClosed if it sleeps, the reason's kind if it is broken."""
        ...

    def after_work(self) -> None:
        """Within the turn, after any work: pass commits on, notice a broken file."""
        ...

    async def durable(self, txid: int) -> None:
        """Return when everything up to ``txid`` is durable; raise what the commit failed with."""
        ...

    async def run_on_thread(self, work: Callable[[Database], T], seconds: float) -> T:
        """Run ``work`` on a worker thread within a turn that the caller keeps."""
        ...

    def break_(self, error: DosqlError) -> None:
        """Refuse everything from now on; what is not durable is lost. Final."""
        ...
