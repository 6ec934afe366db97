"""Access: how the storage faces (SQL, key-value, alarms) reach the database of their object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from dosql.sqlite.database import Database

T = TypeVar("T")


class Access(Protocol):
    """Given to each face once; the activation behind it knows whose turn it is."""

    def read(self) -> Database:
        """The database, for reading now.

        Raises:
            ObjectResetError: this life of the object has ended.
            ConflictError: ``storage_busy``: another event's critical section has the storage.
        """
        ...

    def write(self, *, confirmed: bool = True) -> Database:
        """The database, with the implicit transaction open.

        It is committed when the event next waits for something, together with every other write
        since it last did. With ``confirmed=False`` nothing that leaves the object waits for it.

        Raises: as `read`.
        """
        ...

    async def on_thread(self, work: Callable[[Database], T]) -> T:
        """Run ``work`` in a transaction of its own on a worker thread; no other event of the
        object runs meanwhile."""
        ...

    def not_in_transaction(self, what: str) -> None:
        """Raises ConflictError ``transaction_open`` inside `transaction` or `transaction_sync`."""
        ...
