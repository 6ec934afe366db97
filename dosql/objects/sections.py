"""Section: a stretch of several steps during which nobody else has the object's turn.

This is the input gate of storage work that waits (`ObjectStorage.transaction`, work on a thread)
and of `block_concurrency_while`. Sections nest: the innermost runs, the outer ones wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dosql.objects.events import Event


class Section:
    """Made by the activation, which opens and closes it."""

    __slots__ = ("body", "ended", "event", "future", "parent", "task", "transactional")

    def __init__(
        self,
        parent: Section | None,
        body: Callable[[], Coroutine[Any, Any, Any]],
        future: asyncio.Future[Any],
    ) -> None:
        self.parent = parent
        self.body = body
        self.future = future
        """Gets the result of the body."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.event: Event | None = None
        """The event that runs the body; None until the section is open."""
        self.task: asyncio.Task[Any] | None = None
        """That of the body, once it has ended while a section inside it is still open."""
        self.transactional = False
        """A transaction is open over several steps: their ends do not commit."""

    @property
    def depth(self) -> int:
        """How many sections there are, this one and those around it."""
        return 1 + (self.parent.depth if self.parent is not None else 0)

    @property
    def in_transaction(self) -> bool:
        """Whether this section, or one around it, is a transaction."""
        return self.transactional or (self.parent is not None and self.parent.in_transaction)
