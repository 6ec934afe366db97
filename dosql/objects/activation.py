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
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from dosql.bookmarks import Bookmark
from dosql.clock import Clock, Timers
from dosql.errors import ConflictError, DosqlError, ObjectResetError, OverloadedError
from dosql.limits import OBJECT_STATEMENT_MS_MAX, SECTION_DEPTH_MAX, SECTION_S_MAX
from dosql.objects.events import Event, check_deadlock, current_event
from dosql.objects.ground import Ground
from dosql.objects.instance import InstanceClosed
from dosql.objects.output_gate import OutputGate
from dosql.objects.sections import Section
from dosql.objects.steps import Steps
from dosql.sqlite.database import Database

T = TypeVar("T")
_log = logging.getLogger("dosql.objects")


class ObjectAborted(BaseException):
    """Unwinds the object's code after `Activation.reset`; ``except Exception`` does not stop it."""


class Activation:
    """Implements `Access` for the storage faces. ``before_commit`` is called within each step that
    wrote, before its commit; what it raises undoes the step and resets the object. ``on_end`` is
    told the end, and whether the ground failed: then it is not known what is durable."""

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
        self.gate = OutputGate(ground)
        self.ended: DosqlError | InstanceClosed | None = None
        self.effects = 0
        """Grows with whatever a step does beyond reading: it writes, something leaves the object,
        something is left to go on. And with every step: in a wait anything may have happened."""
        self._before_commit = before_commit
        self._on_end = on_end
        self.clock = clock
        self._timers = timers
        self._statement_s = statement_s
        self._stepping: Event | None = None
        self._implicit = False
        """The implicit transaction is open."""
        self._confirm = False
        """It holds a write that what leaves must wait for."""
        self._loose = False
        """Storage is used by code that runs in no step; `_end_loose` is on its way."""
        self._thread: asyncio.Task[Any] | None = None
        """Work on a thread, which has the database until it ends."""
        self._sync_depth = 0
        self._section: Section | None = None
        """The innermost open one."""
        self._asked: list[Section] = []
        """Sections that the current step asked for; the first opens at its end."""
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
        await self._enter(event)
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
        beginning = asyncio.get_running_loop().create_task(self._begin(event, body))
        beginning.add_done_callback(_retrieve)  # a caller that was reset does not
        return await beginning

    def _would_wait_inside(self, cause: Event | None) -> bool:
        """Whether the code of an object would wait here for a turn."""
        return cause is not None and self.ground.turns.busy

    async def _begin(
        self, event: Event, body: Callable[[], Coroutine[Any, Any, T]]
    ) -> asyncio.Task[tuple[T, Bookmark]]:
        await self._enter(event)
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

    async def _enter(self, event: Event) -> None:
        if not self.ground.turns.try_enter():
            await self._wait_for_turn(event, bounded=True)
        event.holds_turn = True
        try:
            self.check_alive()
            self.ground.check_open()
        except BaseException:
            self.ground.turns.leave()
            raise
        self.ground.used_at = self.clock.monotonic()

    async def _wait_for_turn(self, event: Event, *, bounded: bool) -> None:
        if bounded:
            check_deadlock(event)
        line = list(event.line())
        for each in line:
            each.blocked_at.append(self)
        try:
            await self.ground.turns.enter(bounded=bounded)
        finally:
            for each in line:
                each.blocked_at.remove(self)

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
        self._stepping = event
        self.ground.db.set_deadline(self._statement_s)

    def end_step(self, event: Event) -> None:
        """The event's code waits, or has ended: commit, and let the next one have its turn.

        Raises the reason if the object was reset in this step, or at its commit.
        """
        self._stepping = None
        if self.ended is None:
            self._settle()
        event.txid = self.gate.txid
        event.bookmark = self.ground.bookmark
        if event.section is None or self._asked:
            self._pass_turn(event)
        self.check_alive()

    async def resume(self, event: Event) -> None:
        """Wait until the event's code may go on."""
        section = event.section
        if section is None:
            if not self.ground.turns.try_enter():
                await self._wait_for_turn(event, bounded=False)
            try:
                self.check_alive()
            except BaseException:
                self.ground.turns.leave()
                raise
            return
        while self._section is not section and self.ended is None:
            inner = self._section
            assert inner is not None, "a section is open until its body has ended"
            await asyncio.shield(inner.ended)
        self.check_alive()

    def check_alive(self) -> None:
        """Raises a copy of the reason if this activation has ended."""
        error = self.ended
        if error is None:
            return
        if isinstance(error, InstanceClosed):
            raise InstanceClosed
        raise error.renewed() from error

    # --- commits ------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Commit the implicit transaction, and say what waits for it."""
        if self._implicit:
            self._implicit = False
            confirm, self._confirm = self._confirm, False
            self.commit(self.ground.db.commit, confirm=confirm)
        else:
            self.ground.after_work()
        if self.ended is None and not self.in_doubt:
            self.gate.decided()

    def commit(self, commit: Callable[[], None], *, confirm: bool) -> None:
        """Call ``commit``; whatever keeps it from happening resets the object."""
        ground = self.ground
        try:
            if not ground.db.in_transaction:
                raise ObjectResetError(
                    "The object was reset: SQLite rolled the transaction of its event back."
                )
            self._before_commit()
            commit()
        except DosqlError as error:
            self.reset(_at_commit(error))
            return
        ground.after_work()
        if confirm and self.ended is None:
            self.gate.committed(ground.bookmark.txid)

    @property
    def in_doubt(self) -> bool:
        """Whether a transaction is open of which nobody knows yet whether it will be committed."""
        return self._implicit or (self._section is not None and self._section.in_transaction)

    def emit(self, action: Callable[[], None], on_drop: Callable[[], None] | None = None) -> None:
        """Let ``action`` leave the object: it runs when all earlier writes are durable."""
        self.effects += 1
        self.gate.emit(action, on_drop, undecided=self.in_doubt)

    async def outgoing(self) -> None:
        """Return when all that was written before is durable; then a call may leave the object.

        Inside a transaction: what was written before it began.
        """
        self.effects += 1
        await self.gate.wait(undecided=self._implicit)

    async def synced(self) -> None:
        """Return when everything that was written is durable, unconfirmed writes included.

        Raises what kept it from being.
        """
        await asyncio.sleep(0)  # the step ends, and commits
        await self.ground.durable(self.ground.bookmark.txid)

    @property
    def current_bookmark(self) -> Bookmark:
        """The state with everything written so far, once its transaction is committed."""
        if not self.in_doubt:
            return self.ground.bookmark
        return Bookmark(self.ground.txid + 1, self.ground.key.incarnation)

    def wipe(self, *, confirmed: bool) -> None:
        """Leave an empty database. Within a step, outside of transactions.

        What the step wrote before is committed first: emptying is a transaction of its own.
        """
        self.write(confirmed=confirmed)
        self._implicit = self._confirm = False
        self.commit(self.ground.db.commit, confirm=confirmed)
        self.check_alive()
        self.ground.db.wipe()
        self.ground.after_work()
        if confirmed:
            self.gate.committed(self.ground.bookmark.txid)

    def _durable_moved(self) -> None:
        broken = self.ground.broken
        if broken is not None:
            self._end(_when_broken(broken), failed=True)
        else:
            self.gate.release()

    # --- storage: see `Access` ----------------------------------------------------------------

    def read(self) -> Database:
        if self._stepping is None:
            self._use_loosely()
        elif self.ended is not None:
            self.check_alive()
        return self.ground.db

    def write(self, *, confirmed: bool = True) -> Database:
        db = self.read()
        self.effects += 1
        if self._section is not None and self._section.in_transaction:
            return db
        if not self._implicit:
            db.begin()
            self._implicit = True
        self._confirm = self._confirm or confirmed
        return db

    def _use_loosely(self) -> None:
        """Storage is used outside of any step: by a task or callback that the object's code left
        behind, or in a test without a host. That stretch becomes a step of its own."""
        self.check_alive()
        if self._loose:
            return
        event = current_event.get()
        inside = (
            self._section is not None
            and event is not None
            and event.section is self._section
            and self._thread is None
        )
        if not inside:
            if not self.ground.turns.try_enter():
                raise ConflictError(
                    "The object's storage is in use: another event is in a critical section.",
                    code="storage_busy",
                    retryable=True,
                )
            self.ground.check_open()
        self.ground.db.set_deadline(self._statement_s)
        self._loose = True
        self.ground.pins += 1
        asyncio.get_running_loop().call_soon(self._end_loose, not inside)

    def _end_loose(self, leave: bool) -> None:
        self._loose = False
        self.ground.pins -= 1
        if self.ended is None:
            self._settle()
        if leave or self._asked:
            self._pass_turn(current_event.get())

    def not_in_transaction(self, what: str) -> None:
        if self._sync_depth or (self._section is not None and self._section.in_transaction):
            raise ConflictError(
                f"{what} is not possible in a transaction.", code="transaction_open"
            )

    def transaction_sync(self, body: Callable[[], T]) -> T:
        """Run ``body`` so that what it wrote is undone if it raises. May be nested."""
        db = self.write()
        self._sync_depth += 1
        try:
            with db.savepoint():
                value = body()
                if inspect.isawaitable(value):
                    if inspect.iscoroutine(value):
                        value.close()
                    raise ConflictError(
                        "transaction_sync takes a function without async; use transaction.",
                        code="transaction_not_sync",
                    )
                return value
        finally:
            self._sync_depth -= 1

    async def on_thread(self, work: Callable[[Database], T]) -> T:
        async def body() -> T:
            db = self.write()
            db.set_deadline(self.ground.statement_s, on_thread=True)

            def in_savepoint(db: Database) -> T:
                with db.savepoint():
                    return work(db)

            running = self.ground.run_on_thread(in_savepoint, self.ground.statement_s)
            thread = self._thread = asyncio.get_running_loop().create_task(running)

            def ended(_: asyncio.Task[T]) -> None:
                self._thread = None

            thread.add_done_callback(ended)
            return await asyncio.shield(thread)

        return await self.transaction(body)

    # --- critical sections --------------------------------------------------------------------

    @property
    def critical_events(self) -> list[Event]:
        """The events whose critical sections hold the turn, innermost first."""
        events: list[Event] = []
        section = self._section
        while section is not None:
            if section.event is not None:
                events.append(section.event)
            section = section.parent
        return events

    def section(self, body: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Run ``body`` so that no other event has a step before it ends.

        It begins at the end of the current step, also if nobody awaits it.

        Raises:
            ConflictError: ``nested_too_deeply``.
        """
        self.check_alive()
        event = self._stepping or current_event.get()
        parent = event.section if event is not None and event.activation is self else None
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        section = Section(parent, body, future)
        self.effects += 1
        if section.depth > SECTION_DEPTH_MAX:
            raise ConflictError(
                f"Critical sections are nested more than {SECTION_DEPTH_MAX} deep.",
                code="nested_too_deeply",
            )
        if self._stepping is not None or self._loose:
            self._asked.append(section)
        else:
            self.spawn(self._open_when_free(section))
        return future

    async def _open_when_free(self, section: Section) -> None:
        """For code that runs in no step."""
        try:
            if section.parent is None:
                await self.ground.turns.enter(bounded=False)
            self.check_alive()
        except BaseException as error:
            _fail(section.future, error)
            raise
        self._open(section, current_event.get())

    def _pass_turn(self, event: Event | None) -> None:
        """At the end of a step outside of sections, or one that asked for some."""
        if self._asked and self.ended is None:
            self._open(self._asked.pop(0), event)
            return
        for section in self._asked:
            _fail(section.future, self.ended or asyncio.CancelledError())
        self._asked.clear()
        if self._section is not None:
            return
        if self._thread is None:
            self.ground.turns.leave()
        else:  # the object was reset, and the thread knows nothing of it
            self._thread.add_done_callback(lambda _: self.ground.turns.leave())

    def _open(self, section: Section, cause: Event | None) -> None:
        """The turn is held: the section takes it over."""
        self._section = section
        event = section.event = Event(self, cause, section)

        async def run() -> Any:
            current_event.set(event)
            return await Steps(self, event, section.body())

        task = self.spawn(run())
        timer = self._timers.call_later(SECTION_S_MAX, self._section_expired)

        def ended(_: asyncio.Task[Any]) -> None:
            timer.cancel()
            self._close(section, task)

        task.add_done_callback(ended)

    def _close(self, section: Section, task: asyncio.Task[Any]) -> None:
        if self._section is not section:  # the last step of the body asked for another one
            section.task = task
            return
        self._section = section.parent
        section.ended.set_result(None)
        if task.cancelled():
            _fail(section.future, self.ended or asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            _fail(section.future, error)
        elif not section.future.done():
            section.future.set_result(task.result())
        if self._asked or section.parent is None:
            self._pass_turn(section.event)
        elif section.parent.task is not None:
            self._close(section.parent, section.parent.task)

    def _section_expired(self) -> None:
        self.reset(
            OverloadedError(
                f"The object was reset: a critical section took longer than {SECTION_S_MAX:.0f} s.",
                code="section_timeout",
            )
        )

    def block_concurrency_while(self, body: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """`section`, and reset the object if ``body`` raises."""

        async def guarded() -> T:
            try:
                return await body()
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                self.reset(
                    ObjectResetError(
                        f"The object was reset: block_concurrency_while failed with {text}"
                    )
                )
                raise

        return self.section(guarded)

    async def transaction(self, body: Callable[[], Awaitable[T]]) -> T:
        """Run ``body`` as a critical section whose writes are one transaction: committed when it
        returns, undone when it raises. May be nested."""

        async def transactional() -> T:
            section = self._section
            assert section is not None
            db = self.ground.db
            nested = section.in_transaction
            point = db.savepoint()
            point.__enter__()
            section.transactional = True
            try:
                value = await body()
            except BaseException as error:
                section.transactional = False
                if self.ended is None:
                    point.__exit__(type(error), error, error.__traceback__)
                raise
            section.transactional = False
            if nested:
                point.__exit__(None, None, None)
            else:
                self.commit(lambda: point.__exit__(None, None, None), confirm=True)
            return value

        return await self.section(transactional)

    # --- the end ------------------------------------------------------------------------------

    def reset(self, error: DosqlError) -> None:
        """End this life of the object: undo what is not durable, drop what waits to leave.

        The ground breaks with it, and the host rebuilds it from what is durable.
        """
        if self.ended is None:
            ground = self.ground
            if self._thread is None and ground.db.broken is None:
                ground.db.rollback()
            self._implicit = False
            self._end(error)
            ground.break_(error)

    def abort(self, reason: str | None) -> None:
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


def _at_commit(error: DosqlError) -> DosqlError:
    if isinstance(error, ObjectResetError):
        return error
    reset = ObjectResetError(
        "The object was reset: what its event wrote since it last waited could not be committed, "
        f"and is undone: {error.message}"
    )
    reset.__cause__ = error
    return reset


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


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
            future.exception()  # nobody has to await it


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
