"""Steps: runs a coroutine so that every stretch between two of its waits is one turn.

asyncio resumes a coroutine whenever what it waited for is there. An object's code may be resumed
only when the object's turn is free, and what it wrote must be committed before anybody else runs:
so `Steps` stands between the task and the coroutine. It passes on what the coroutine waits for,
and takes and leaves the turn around each ``send``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from dosql.objects.activation import Activation
    from dosql.objects.events import Event

T = TypeVar("T")
_log = logging.getLogger("dosql.objects")


_NOTHING = object()


class Steps(Generic[T]):
    """Awaitable once. The turn is held when it starts; it is left, or passed on, when it ends.

    ``awaited``: the coroutine had its first step already, and waits for this.
    """

    def __init__(
        self,
        activation: Activation,
        event: Event,
        coroutine: Coroutine[Any, Any, T],
        awaited: object = _NOTHING,
    ) -> None:
        self._activation = activation
        self._event = event
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        activation, event, coroutine = self._activation, self._event, self._coroutine
        awaited = self._awaited
        error: BaseException | None = None
        while True:
            if awaited is not _NOTHING:
                try:
                    yield awaited
                    error = None
                except BaseException as raised:
                    error = raised
                while True:
                    try:
                        activation.check_alive()
                        yield from event.resume().__await__()
                        break
                    except asyncio.CancelledError as raised:
                        # For the code to hear of, when its turn comes; unless the object was reset.
                        error = raised
                    except BaseException:
                        self._abandon()
                        raise
            activation.begin_step(event)
            try:
                awaited = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                activation.end_step(event)
                value: T = stop.value
                return value
            except BaseException:
                activation.end_step(event)  # if the object was reset, that is the news
                raise
            try:
                activation.end_step(event)
            except BaseException:
                self._abandon()
                raise

    def _abandon(self) -> None:
        """The object was reset: nothing of its code runs any more but ``finally``."""
        try:
            self._coroutine.close()
        except BaseException:
            _log.debug("an event did not end well after its object was reset", exc_info=True)
