"""Moves: the objects that are on their way into memory, or out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance

Move = asyncio.Task[Instance | None]


class Moves:
    """At most one for an object: whoever wants it meanwhile waits for the same."""

    def __init__(self) -> None:
        self._moves: dict[ObjectKey, Move] = {}

    def __len__(self) -> int:
        return len(self._moves)

    def of(self, key: ObjectKey) -> Move | None:
        """The move of this object that is still under way."""
        move = self._moves.get(key)
        if move is not None and move.done():  # its callback has yet to run
            del self._moves[key]
            return None
        return move

    def start(self, key: ObjectKey, coroutine: Coroutine[Any, Any, Instance | None]) -> Move:
        """Move an object that stands still. To wait for it, shield it."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._moves[key] = task

        def ended(_: Move) -> None:
            if self._moves.get(key) is task:
                del self._moves[key]
            if not task.cancelled():
                task.exception()  # whoever waits gets it too; nobody else needs to hear of it

        task.add_done_callback(ended)
        return task

    async def end_of(self, key: ObjectKey) -> None:
        """Return when the object stands still, whatever became of it."""
        while (move := self.of(key)) is not None:
            await asyncio.wait([move])

    async def next_end(self) -> bool:
        """Return when any move has ended. False: there is none."""
        moves = self._under_way()
        if not moves:
            return False
        await asyncio.wait(moves, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # let it be taken off the list
        return True

    async def settled(self) -> None:
        """Return when nothing moves."""
        while moves := self._under_way():
            await asyncio.wait(moves)

    def _under_way(self) -> list[Move]:
        return [each for each in self._moves.values() if not each.done()]
