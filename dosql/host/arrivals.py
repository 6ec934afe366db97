"""Arrivals: calls that came before their object was awake go on in the order in which they came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Generic, TypeVar

T = TypeVar("T")


class Arrivals(Generic[T]):
    """Who waits for one wake. Whoever comes while those before are about to go on waits too: a
    future wakes its waiters one turn of the loop later, and nobody shall overtake them."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[T]] = []
        self._outcome: T | BaseException | None = None

    async def wait(self) -> T:
        """What the wake made. Raises what it raised."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._outcome is None:
            self._waiting.append(future)
        else:
            _settle(future, self._outcome)
        return await future

    async def resolve(self, wake: Awaitable[T]) -> None:
        """Let everybody go on with what ``wake`` makes."""
        try:
            self._outcome = await wake
        except asyncio.CancelledError:
            self._outcome = asyncio.CancelledError()
            raise
        except BaseException as error:
            self._outcome = error
        finally:
            for future in self._waiting:
                assert self._outcome is not None
                _settle(future, self._outcome)


def _settle(future: asyncio.Future[T], outcome: T | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, asyncio.CancelledError):
        future.cancel()
    elif isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
