"""Grounds: where the grounds of durable objects come from, and who is asked before they go.

`AwakeObjects` is the real one; `dosql.testing` has one in memory.
"""

from __future__ import annotations

from typing import Protocol

from dosql.durability import Durability
from dosql.log.group_commit import Flush
from dosql.log.records import ObjectKey
from dosql.objects.ground import Ground


class Leaving(Protocol):
    """Who lives on the grounds, and wants to know when one is given up."""

    def keeps_awake(self, key: ObjectKey) -> bool:
        """Whether the object must stay in memory although nothing runs."""
        ...

    async def before_sleep(self, key: ObjectKey) -> None:
        """The object is about to be put to sleep; its turn is still free."""
        ...

    def leave(self, key: ObjectKey) -> bool:
        """In the object's turn, with nothing under way and all of it durable: it leaves memory.
        True: it stores nothing, so it ceases to exist."""
        ...

    def cease(self, key: ObjectKey) -> Flush | None:
        """Take the object off the catalog, and end it in the log; None: it never was in them."""
        ...


class Nobody:
    """Nobody lives there."""

    def keeps_awake(self, key: ObjectKey) -> bool:
        """No."""
        return False

    async def before_sleep(self, key: ObjectKey) -> None:
        """Nothing."""

    def leave(self, key: ObjectKey) -> bool:
        """It goes on to exist."""
        return False

    def cease(self, key: ObjectKey) -> Flush | None:
        """Never asked."""
        return None


class Grounds(Protocol):
    """All grounds of a host."""

    leaving: Leaving

    async def ground(self, key: ObjectKey, durability: Durability) -> Ground:
        """The object's ground, woken if need be; ``durability``: what its replies wait for.

        Raises:
            CorruptError: its stored bytes are damaged.
        """
        ...

    def expect_new(self, key: ObjectKey) -> None:
        """The key was made a moment ago: nothing is stored of it anywhere."""
        ...

    def used(self, key: ObjectKey) -> None:
        """Something happens to the object: it is not to be put to sleep soon."""
        ...

    async def sleep_now(self, key: ObjectKey) -> None:
        """Put the object to sleep, if it is awake and nothing is under way."""
        ...
