"""Arrivals: calls that want an object which is not awake go on in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Living(Protocol):
    """What a wake makes."""

    @property
    def is_alive(self) -> bool:
        """Whether calls can still go on with it."""
        ...


LivingT = TypeVar("LivingT", bound=Living)


class Arrivals(Generic[LivingT]):
    """Who waits for one object, in line.

    Only the first in the line goes on, and the next one is told to when the first has: asyncio
    resumes a task one turn of its loop after what it waited for is there, and whoever comes in
    that turn shall not overtake anybody.

    A wake is made for all who are in line: what it raises, they all get.
    """

    def __init__(self, wake: Callable[[], asyncio.Task[LivingT]]) -> None:
        """``wake`` begins one."""
        self._begin_wake = wake
        self._wake: asyncio.Task[LivingT] | None = None
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more, and nothing is being woken."""
        return not self._line and (self._wake is None or self._wake.done())

    async def wait(self) -> LivingT:
        """The object, alive; whoever gets it has gone on once it waits for something else.

        Raises what the wake raised.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            if self._line[0] is not place:
                await place
            while not (living := await self._woken()).is_alive:
                self._wake = None  # whoever went on before had it reset
            return living
        finally:
            self._leave(place)

    async def _woken(self) -> LivingT:
        wake = self._wake = self._wake or self._begin_wake()
        try:
            return await asyncio.shield(wake)
        finally:
            if wake.done():
                self._share_failure(wake)

    def _share_failure(self, wake: asyncio.Task[LivingT]) -> None:
        error = None if wake.cancelled() else wake.exception()
        if not wake.cancelled() and error is None:
            return
        self._wake = None
        for place in self._line:
            if place.done():
                continue
            if error is None:
                place.cancel()
            elif place is not self._line[0]:
                place.set_exception(error)

    def _leave(self, place: asyncio.Future[None]) -> None:
        was_first = self._line[0] is place
        self._line.remove(place)
        if was_first and self._line and not self._line[0].done():
            self._line[0].set_result(None)
