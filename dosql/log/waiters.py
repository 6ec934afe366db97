"""Waiters: those who wait for a commit to reach the bucket."""

from __future__ import annotations

import asyncio

from dosql.errors import DosqlError, OutcomeUnknownError


class Waiters:
    """Of one object. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], int] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, txid: int, seconds: float) -> None:
        """Return when `arrived` has been called with ``txid`` or more.

        Raises:
            OutcomeUnknownError: ``bucket_unavailable``: not within ``seconds``; it may still be.
            DosqlError: what `fail` was called with.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = txid
        try:
            await asyncio.wait_for(waiter, seconds)
        except TimeoutError:
            raise OutcomeUnknownError(
                "The bucket did not confirm the commit in time; it may or may not be kept.",
                code="bucket_unavailable",
            ) from None
        finally:
            del self._waiting[waiter]

    def arrived(self, txid: int) -> None:
        """Everything up to ``txid`` is there."""
        for waiter, wanted in self._waiting.items():
            if wanted <= txid and not waiter.done():
                waiter.set_result(None)

    def fail(self, error: DosqlError) -> None:
        """Nothing more will arrive."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error.renewed())
