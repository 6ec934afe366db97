"""Activation: one life of an object's code in memory.

Invariants:
- Code of the object runs in *steps*: from where an event starts or goes on to where it next waits.
  A step is one turn of the object, and what it wrote is committed at its end, whole or not at all.
- A critical section keeps the turn over several steps: the input gate is closed meanwhile.
- What leaves the object passes the output gate.
- Ended is final. After a reset none of its code runs on, what was not durable is undone, and the
  next call meets a new activation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from dosql.bookmarks import Bookmark
from dosql.clock import Clock, Timers
from dosql.errors import DosqlError, ObjectResetError
from dosql.limits import OBJECT_STATEMENT_MS_MAX
from dosql.objects.commits import Commits
from dosql.objects.events import Event, current_event
from dosql.objects.ground import Ground
from dosql.objects.instance import InstanceClosed
from dosql.objects.output_gate import OutputGate
from dosql.objects.sections import Sections
from dosql.objects.steps import Steps
from dosql.objects.turn_access import TurnAccess

T = TypeVar("T")


class ObjectAborted(BaseException):
    """Unwinds the object's code after `Activation.reset`; ``except Exception`` does not stop it."""


class Activation:
    """What its code may do when, until it ends. The parts: how it reaches the database
    (``access``), when that is committed (``commits``), who has the turn for how long
    (``sections``), and what leaves the object (``gate``).

    ``before_commit``: see `Commits`. ``on_end`` is told the end, and whether the ground failed:
    then it is not known what is durable.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        clock: Clock,
        timers: Timers,
        before_commit: Callable[[], None] = lambda: None,
        on_end: Callable[[bool], None] = lambda _: None,
        statement_s: float = OBJECT_STATEMENT_MS_MAX / 1000,
    ) -> None:
        self.ground = ground
        self.clock = clock
        self.gate = OutputGate(ground)
        self.commits = Commits(self, before_commit)
        self.access = TurnAccess(self, statement_s)
        self.sections = Sections(self, timers)
        self.ended: DosqlError | InstanceClosed | None = None
        self.stepping: Event | None = None
        """Whose code runs now."""
        self.effects = 0
        """Grows with whatever a step does beyond reading: it writes, something leaves the object,
        something is left to go on. And with every step: in a wait anything may have happened."""
        self._on_end = on_end
        self._to_queue: set[Event] = set()
        """Events on their way to the queue for the turn: no later one may get there first."""
        self._tasks: dict[asyncio.Task[Any], None] = {}  # a dict, for its order
        ground.on_durable = self._durable_moved

    # --- events -------------------------------------------------------------------------------

    async def run(
        self, body: Callable[[], Coroutine[Any, Any, T]], *, waits: bool = True
    ) -> tuple[T, Bookmark]:
        """Run ``body`` as one event; return when all that it wrote is durable.

        Once begun it runs to its end, even if the caller goes away. ``waits=False``: it is not
        expected to wait for anything, so a task is made only if it does.

        Raises:
            InstanceClosed: the object went to sleep before its turn came.
            OverloadedError: the queue was too long, or the wait in it.
            ConflictError: ``object_deadlock``.
            ObjectResetError: the object was reset meanwhile.
            Exception: whatever ``body`` raised; what it wrote before is kept.
        """
        if waits or self._would_wait_inside(current_event.get()):
            return await self._outcome(await self.start(body))
        event = Event(self, current_event.get())
        await event.enter()
        token = current_event.set(event)
        event.holds_turn = False
        self.begin_step(event)
        coroutine = body()
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:
            value: T = stop.value
        except Exception:
            self.end_step(event)
            await self._confirmed(event)
            raise
        except BaseException:
            self.end_step(event)
            raise
        else:  # it waits after all
            self.end_step(event)
            steps = Steps(self, event, coroutine, awaited)
            return await self._outcome(self.spawn(self._follow(event, steps)))
        finally:
            current_event.reset(token)
        self.end_step(event)
        await self._confirmed(event)
        return value, event.bookmark

    async def _outcome(self, task: asyncio.Task[T]) -> T:
        """Of an event that runs on if whoever waits for it is cancelled."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by a reset
                self.check_alive()
            raise

    async def start(
        self, body: Callable[[], Coroutine[Any, Any, T]]
    ) -> asyncio.Task[tuple[T, Bookmark]]:
        """As `run`, but return as soon as the event has its turn: later ones come after it."""
        event = Event(self, current_event.get())
        if not self._would_wait_inside(event.cause):
            return await self._begin(event, body)
        # Not in the coroutine that makes the call: a step of its object cannot be had together
        # with the turn here, or two objects that call each other would wait for ever.
        self._to_queue.add(event)
        beginning = asyncio.get_running_loop().create_task(self._queue(event, body))

        def ended(_: asyncio.Task[asyncio.Task[tuple[T, Bookmark]]]) -> None:
            self._to_queue.discard(event)  # cancelled before it began
            if not beginning.cancelled():
                beginning.exception()  # a caller that was reset does not ask for it

        beginning.add_done_callback(ended)
        return await beginning

    def _would_wait_inside(self, cause: Event | None) -> bool:
        """Whether the code of an object would wait here for a turn."""
        return cause is not None and (self.ground.turns.busy or bool(self._to_queue))

    async def _queue(
        self, event: Event, body: Callable[[], Coroutine[Any, Any, T]]
    ) -> asyncio.Task[tuple[T, Bookmark]]:
        self._to_queue.discard(event)
        return await self._begin(event, body)

    async def _begin(
        self, event: Event, body: Callable[[], Coroutine[Any, Any, T]]
    ) -> asyncio.Task[tuple[T, Bookmark]]:
        await event.enter()
        return self.spawn(self._event(event, body), event)

    async def _event(
        self, event: Event, body: Callable[[], Coroutine[Any, Any, T]]
    ) -> tuple[T, Bookmark]:
        current_event.set(event)
        event.holds_turn = False
        return await self._follow(event, Steps(self, event, body()))

    async def _follow(self, event: Event, steps: Steps[T]) -> tuple[T, Bookmark]:
        try:
            value = await steps
        except Exception:
            await self._confirmed(event)
            raise
        await self._confirmed(event)
        return value, event.bookmark

    async def _confirmed(self, event: Event) -> None:
        """The output gate for an event's reply, also if that is an error."""
        event.cause = None  # code that it left behind may cause the next one, and so on for ever
        if isinstance(self.ended, DosqlError):
            self.check_alive()
        if self.ground.durable_txid < event.txid:
            await self.ground.durable(event.txid)

    def spawn(
        self, coroutine: Coroutine[Any, Any, T], event: Event | None = None
    ) -> asyncio.Task[T]:
        """Run it beside the events; the object is not put to sleep before it ends."""
        self.effects += 1
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks[task] = None
        self.ground.pins += 1

        def ended(_: asyncio.Task[T]) -> None:
            self._tasks.pop(task, None)
            if not task.cancelled():
                task.exception()  # whoever waits gets it too
            self.ground.pins -= 1
            self.ground.used_at = self.clock.monotonic()
            if event is not None and event.holds_turn:  # cancelled before it began
                self.ground.turns.leave()

        task.add_done_callback(ended)
        return task

    # --- steps (called by `Steps`) ------------------------------------------------------------

    def begin_step(self, event: Event) -> None:
        """The event has the turn, or its section has, and its code goes on."""
        self.effects += 1
        self.stepping = event
        self.access.begin_step()

    def end_step(self, event: Event) -> None:
        """The event's code waits, or has ended: commit, and let the next one have its turn.

        Raises the reason if the object was reset in this step, or at its commit.
        """
        self.stepping = None
        if self.ended is None:
            self.commits.settle()
        event.txid = self.gate.txid
        event.bookmark = self.ground.bookmark
        if event.section is None or self.sections.are_asked_for:
            self.sections.pass_turn(event)
        self.check_alive()

    def check_alive(self) -> None:
        """Raises a copy of the reason if this activation has ended."""
        error = self.ended
        if error is None:
            return
        if isinstance(error, InstanceClosed):
            raise InstanceClosed
        raise error.renewed() from error

    # --- the output gate ----------------------------------------------------------------------

    def emit(self, action: Callable[[], None], on_drop: Callable[[], None] | None = None) -> None:
        """Let ``action`` leave the object: it runs when all earlier writes are durable."""
        self.effects += 1
        self.gate.emit(action, on_drop, undecided=self.commits.in_doubt)

    async def outgoing(self) -> None:
        """Return when all that was written before is durable; then a call may leave the object.

        Inside a transaction: what was written before it began.
        """
        self.effects += 1
        await self.gate.wait(undecided=self.commits.is_begun)

    async def synced(self) -> None:
        """Return when everything that was written is durable, unconfirmed writes included.

        Raises what kept it from being.
        """
        await asyncio.sleep(0)  # the step ends, and commits
        await self.ground.durable(self.ground.bookmark.txid)

    def _durable_moved(self) -> None:
        broken = self.ground.broken
        if broken is not None:
            self._end(_when_broken(broken), failed=True)
        else:
            self.gate.release()

    # --- the end ------------------------------------------------------------------------------

    def reset(self, error: DosqlError) -> None:
        """End this life of the object: undo what is not durable, drop what waits to leave.

        The ground breaks with it, and the host rebuilds it from what is durable.
        """
        if self.ended is None:
            self.access.undo()
            self.commits.forget()
            self._end(error)
            self.ground.break_(error)

    def abort(self, reason: str | None) -> NoReturn:
        """`reset` by the object's own code; unwinds it."""
        self.reset(ObjectResetError(reason or "The object was reset by its own code."))
        raise ObjectAborted

    def retire(self) -> None:
        """The object goes to sleep, within its turn and with nothing under way."""
        self._end(InstanceClosed())

    def _end(self, error: DosqlError | InstanceClosed, *, failed: bool = False) -> None:
        if self.ended is not None:
            return
        self.ended = error
        if isinstance(error, DosqlError):
            self.gate.break_(error)
        for task in list(self._tasks):
            task.cancel()
        self._on_end(failed)


def _when_broken(broken: DosqlError) -> ObjectResetError:
    """For an event of which earlier steps may be durable, whatever became of the last one."""
    cause, nothing, _ = broken.message.partition("; nothing was written")
    reset = ObjectResetError(
        f"The object was reset: {cause}; what was not durable before is undone."
        if nothing
        else f"The object was reset: {broken.message}"
    )
    reset.__cause__ = broken
    return reset
