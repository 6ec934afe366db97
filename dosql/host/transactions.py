"""OpenTransactions: finds an interactive transaction again by its id."""

from __future__ import annotations

import asyncio

from dosql.errors import NotFoundError
from dosql.objects.interactive import InteractiveTransaction


class OpenTransactions:
    """Every open interactive transaction of the host, with the tenant it belongs to."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, InteractiveTransaction]] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, tenant: str, transaction: InteractiveTransaction) -> None:
        """Keep it findable until it ends."""
        self._open[transaction.id] = (tenant, transaction)

        async def forget() -> None:
            await transaction.wait_closed()
            self._open.pop(transaction.id, None)

        task = asyncio.get_running_loop().create_task(forget())
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def get(self, tenant: str, id: str) -> InteractiveTransaction:
        """Raises NotFoundError (``transaction_not_found``), also for another tenant's."""
        owner, transaction = self._open.get(id, ("", None))
        if transaction is None or owner != tenant:
            raise NotFoundError(
                "There is no such transaction; it may have ended.", code="transaction_not_found"
            )
        return transaction

    async def roll_back(self, tenant: str | None = None) -> None:
        """End those of one tenant, or all."""
        for owner, transaction in list(self._open.values()):
            if tenant is None or owner == tenant:
                await transaction.rollback()
