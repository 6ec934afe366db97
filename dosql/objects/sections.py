"""Critical sections: stretches of several steps during which nobody else has the object's turn.

They are the input gate of storage work that waits (`ObjectStorage.transaction`, work on a thread)
and of `block_concurrency_while`. Sections nest: the innermost runs, the outer ones wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from dosql.clock import Timers
from dosql.errors import ConflictError, ObjectResetError, OverloadedError
from dosql.limits import SECTION_DEPTH_MAX, SECTION_S_MAX
from dosql.objects.events import Event, current_event
from dosql.objects.steps import Steps

if TYPE_CHECKING:
    from dosql.objects.activation import Activation

T = TypeVar("T")


class Section:
    """Made by `Sections`, which opens and closes it."""

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


class Sections:
    """Those of one activation. While one is open, the turn is its own."""

    def __init__(self, activation: Activation, timers: Timers) -> None:
        self.innermost: Section | None = None
        """Of the open ones."""
        self._activation = activation
        self._timers = timers
        self._asked: list[Section] = []
        """Those that the current step asked for; the first opens at its end."""

    @property
    def are_asked_for(self) -> bool:
        """Whether the step that runs asked for a section."""
        return bool(self._asked)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open over several steps."""
        return self.innermost is not None and self.innermost.in_transaction

    @property
    def events(self) -> list[Event]:
        """The events whose sections hold the turn, innermost first."""
        events: list[Event] = []
        section = self.innermost
        while section is not None:
            if section.event is not None:
                events.append(section.event)
            section = section.parent
        return events

    def run(self, body: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Run ``body`` so that no other event has a step before it ends.

        It begins at the end of the current step, also if nobody awaits it.

        Raises:
            ConflictError: ``nested_too_deeply``.
        """
        activation = self._activation
        activation.check_alive()
        event = activation.stepping or current_event.get()
        parent = event.section if event is not None and event.activation is activation else None
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        section = Section(parent, body, future)
        activation.effects += 1
        if section.depth > SECTION_DEPTH_MAX:
            raise ConflictError(
                f"Critical sections are nested more than {SECTION_DEPTH_MAX} deep.",
                code="nested_too_deeply",
            )
        if activation.stepping is not None or activation.access.is_loose:
            self._asked.append(section)
        else:
            activation.spawn(self._open_when_free(section))
        return future

    def block_concurrency_while(self, body: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """`run`, and reset the object if ``body`` raises."""

        async def guarded() -> T:
            try:
                return await body()
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                self._activation.reset(
                    ObjectResetError(
                        f"The object was reset: block_concurrency_while failed with {text}"
                    )
                )
                raise

        return self.run(guarded)

    async def wait_for(self, section: Section) -> None:
        """Return when no section is open inside this one: its body may go on."""
        while self.innermost is not section and self._activation.ended is None:
            inner = self.innermost
            assert inner is not None, "a section is open until its body has ended"
            await asyncio.shield(inner.ended)

    def pass_turn(self, event: Event | None) -> None:
        """At the end of a step outside of sections, or one that asked for some: the turn goes to
        what it asked for, or to whoever waits for it."""
        ended = self._activation.ended
        if self._asked and ended is None:
            self._open(self._asked.pop(0), event)
            return
        for section in self._asked:
            _fail(section.future, ended or asyncio.CancelledError())
        self._asked.clear()
        if self.innermost is None:
            self._activation.access.leave_turn()

    async def _open_when_free(self, section: Section) -> None:
        """For code that runs in no step."""
        activation = self._activation
        try:
            if section.parent is None:
                await activation.ground.turns.enter(bounded=False)
            activation.check_alive()
        except BaseException as error:
            _fail(section.future, error)
            raise
        self._open(section, current_event.get())

    def _open(self, section: Section, cause: Event | None) -> None:
        """The turn is held: the section takes it over."""
        self.innermost = section
        event = section.event = Event(self._activation, cause, section)

        async def run() -> Any:
            current_event.set(event)
            return await Steps(self._activation, event, section.body())

        task = self._activation.spawn(run())
        timer = self._timers.call_later(SECTION_S_MAX, self._expired)

        def ended(_: asyncio.Task[Any]) -> None:
            timer.cancel()
            self._close(section, task)

        task.add_done_callback(ended)

    def _close(self, section: Section, task: asyncio.Task[Any]) -> None:
        if self.innermost is not section:  # the last step of the body asked for another one
            section.task = task
            return
        self.innermost = section.parent
        section.ended.set_result(None)
        if task.cancelled():
            _fail(section.future, self._activation.ended or asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            _fail(section.future, error)
        elif not section.future.done():
            section.future.set_result(task.result())
        if self._asked or section.parent is None:
            self.pass_turn(section.event)
        elif section.parent.task is not None:
            self._close(section.parent, section.parent.task)

    def _expired(self) -> None:
        self._activation.reset(
            OverloadedError(
                f"The object was reset: a critical section took longer than {SECTION_S_MAX:.0f} s.",
                code="section_timeout",
            )
        )


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
            future.exception()  # nobody has to await it
