"""Event: one thing that happens to an object: a call, a request, a frame, an alarm.

An event knows which event caused it, also in another object, so that a wait that could never end
is found before it begins: see `check_deadlock`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from dosql.bookmarks import Bookmark
from dosql.errors import ConflictError

if TYPE_CHECKING:
    from dosql.objects.activation import Activation
    from dosql.objects.sections import Section

current_event: ContextVar[Event | None] = ContextVar("dosql_event", default=None)
"""The event whose code runs here; tasks that it starts inherit it."""


class Event:
    """Made when it arrives at the object, before it has its turn."""

    __slots__ = (
        "activation",
        "blocked_at",
        "bookmark",
        "cause",
        "holds_turn",
        "section",
        "txid",
    )

    def __init__(
        self, activation: Activation, cause: Event | None, section: Section | None = None
    ) -> None:
        self.activation = activation
        self.cause = cause
        """The event that waits for this one; None for one from outside, or after its end."""
        self.section = section
        """The critical section that this event is the body of."""
        self.holds_turn = False
        """It has the turn for its first step, which has not begun yet."""
        self.txid = 0
        """What its reply must wait for, as of its newest step."""
        self.bookmark: Bookmark = activation.ground.bookmark
        """The state after its newest step."""
        self.blocked_at: list[Activation] = []
        """Where this event, or one that it caused, waits for a turn."""

    async def enter(self) -> None:
        """Get the turn for the first step; whoever has it must `leave` it.

        Raises:
            InstanceClosed: the object went to sleep before.
            OverloadedError: the queue was too long, or the wait in it.
            ConflictError: ``object_deadlock``.
            DosqlError: this life of the object has ended.
        """
        activation = self.activation
        ground = activation.ground
        if not ground.turns.try_enter():
            await self._wait_for_turn(bounded=True)
        self.holds_turn = True
        try:
            activation.check_alive()
            ground.check_open()
        except BaseException:
            ground.turns.leave()
            raise
        ground.used_at = activation.clock.monotonic()

    async def resume(self) -> None:
        """Return when the event's code may go on with its next step.

        Raises what this life of the object has ended with.
        """
        activation = self.activation
        if self.section is not None:
            await activation.sections.wait_for(self.section)
            activation.check_alive()
            return
        if not activation.ground.turns.try_enter():
            await self._wait_for_turn(bounded=False)
        try:
            activation.check_alive()
        except BaseException:
            activation.ground.turns.leave()
            raise

    async def _wait_for_turn(self, *, bounded: bool) -> None:
        if bounded:
            check_deadlock(self)
        line = list(self.line())
        for each in line:
            each.blocked_at.append(self.activation)
        try:
            await self.activation.ground.turns.enter(bounded=bounded)
        finally:
            for each in line:
                each.blocked_at.remove(self.activation)

    def line(self) -> Iterator[Event]:
        """This event, and those that led to it."""
        event: Event | None = self
        while event is not None:
            yield event
            event = event.cause


def leave_event() -> None:
    """The rest of this task is no part of the event in whose context it was made: nothing of an
    object waits for it."""
    current_event.set(None)


def check_deadlock(event: Event) -> None:
    """Refuse to wait for a turn that is held, directly or by way of other objects, by a critical
    section which itself waits for this event.

    Raises:
        ConflictError: ``object_deadlock``.
    """
    line = set(event.line())
    seen: set[Activation] = set()
    places = [event.activation]
    while places:
        place = places.pop()
        if place in seen:
            continue
        seen.add(place)
        for holder in place.sections.events:
            if holder in line:
                raise ConflictError(
                    "The call waits for a critical section (block_concurrency_while or "
                    "transaction) that waits for the call.",
                    code="object_deadlock",
                )
            places += holder.blocked_at
