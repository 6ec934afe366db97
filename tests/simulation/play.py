"""Plays a script inside an object, step for step beside the model.

A script is a list of operations, each a word and its arguments; the words are the methods of
`Play`. Every operation first asks the model whether its event may run now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dosql.errors import ConflictError, DosqlError
from tests.simulation.model import AskedForError, Effect, Unit

if TYPE_CHECKING:
    from tests.simulation.subject import Subject

Script = list[list[Any]]


class Play:
    """One event of an object, or the body of one of its critical sections."""

    def __init__(self, subject: Subject, who: str, *, in_section: bool = False) -> None:
        self.subject = subject
        self.storage: Any = subject.ctx.storage
        self.life = subject.life
        self.world = subject.world
        self.who = who
        self.in_section = in_section
        self.within: str | None = None
        """Of code that outlives its event: the critical section that it was started in."""
        self.fresh = True
        """A new step has begun: the next change is a unit of its own."""

    async def all(self, script: Script) -> None:
        for word, *arguments in script:
            self.life.step(self.who)
            try:
                await getattr(self, word.replace(" ", "_"))(*arguments)
            except Exception as error:
                self.world.check_error(self.who, word, error)
                raise
            self.life.step(self.who)

    # --- one step -----------------------------------------------------------------------------

    async def read(self) -> None:
        self.subject.compare(self.who)

    async def change(self, effects: list[Effect], confirmed: bool) -> None:
        can_choose = all(effect[0] == "put" or effect[1] == "" for effect in effects)
        self.change_now(effects, confirmed=confirmed or not can_choose)

    def change_now(self, effects: list[Effect], *, confirmed: bool = True) -> None:
        """All of it in the present step."""
        effects = self._real(effects)
        id = self.world.next_id()
        self.subject.apply(effects, id, confirmed=confirmed)
        self._tell([id], effects, confirmed)

    async def transaction_sync(self, effects: list[Effect], is_kept: bool) -> None:
        effects = self._real(effects)
        id = self.world.next_id()

        def body() -> None:
            self.subject.apply(effects, id)
            if not is_kept:
                raise AskedForError

        try:
            self.storage.transaction_sync(body)
        except AskedForError:
            self.subject.undid()
            return
        self._tell([id], effects, True)

    async def wipe(self) -> None:
        """Everything goes, the ids of earlier units too; one transaction of its own."""
        try:
            self.storage.delete_all()
        except ConflictError as error:
            assert error.code == "transaction_open", error  # noqa: PT017
            return
        self.subject.undid()
        id = self.world.next_id()
        self.world.wiped(self.life, id)
        self.subject.apply([], id)
        self.life.running.clear()
        self.fresh = True
        self._tell([id], [["wipe"]], True)

    async def send(self) -> None:
        for ws in self.subject.ctx.get_websockets():
            ws.send(f"{self.life.position} is news of {self.who}")

    async def fail(self) -> None:
        raise AskedForError

    async def abort(self) -> None:
        self.life.may_lose = self.life.over = True
        self.world.note(f"{self.who} aborts")
        self.subject.ctx.abort("asked for")

    def _real(self, effects: list[Effect]) -> list[Effect]:
        """The effects that these operations have now."""
        real: list[Effect] = []
        state = self.life.now.copy()
        for effect in effects:
            match effect:
                case ["alarm", name, delay_ms]:
                    real.append(["alarm", name, self.world.next_time(delay_ms)])
                case ["no alarm", name] if name in self.life.running:
                    # What runs is not stopped; only a time that it was given meanwhile is undone.
                    at_ms = self.life.running[name]
                    if state.alarms.get(name, at_ms) == at_ms:
                        continue
                    real.append(["alarm again", name, at_ms])
                case _:
                    real.append(effect)
            state.apply(real[-1])
        return real

    def _tell(self, ids: list[int], effects: list[Effect], confirmed: bool) -> None:
        self.life.step(self.who, within=self.within)
        self.life.change(Unit(ids, effects, confirmed), joins=not self.fresh)
        self.fresh = False

    # --- waiting ------------------------------------------------------------------------------

    async def pause(self) -> None:
        await self.world.pause(self.who)
        if self.life.latest != self.who:
            self.world.counts["interleavings"] += 1
        self.fresh = True

    async def increment(self) -> None:
        """A lost update, were it not for the critical section around it."""
        value = self.storage.kv.get("n", 0)
        await self.pause()
        self.life.step(self.who)
        self.change_now([["put", "n", value + 1]])

    async def sync(self) -> None:
        position = self.life.newest
        try:
            await self.storage.sync()
        except ConflictError as error:
            assert error.code == "transaction_open", error  # noqa: PT017
            return
        self.fresh = True
        self.world.check_visible([self.life.name, position], f"the sync of {self.who}")

    async def on_thread(self, text: str) -> None:
        """A transaction of its own; it begins before anybody else can have a step."""
        if not self.subject.has_tables():
            return
        id = self.world.next_id()
        self.fresh = True
        self._tell([id], [["row", text]], True)
        await self.storage.sql.exec_on_thread(
            f"INSERT INTO units (id) VALUES ({id}); INSERT INTO rows (text) VALUES (?)", text
        )
        self.fresh = True

    async def call(self, name: str, script: Script) -> None:
        """Call another object, or the same one. That may be refused."""
        who = self.world.next_name(self.who)
        cause = [self.life.name, self.life.position]
        try:
            position = await self.subject.env.SUBJECT.get_by_name(name).run(who, script, cause)
        except DosqlError as error:
            self.world.note(f"{who}: {error.code}")
        else:
            self.world.check_visible([name, position], f"the answer {who}")
        self.fresh = True

    async def later(self, changes: list[list[Effect]], aborts: bool) -> None:
        """`wait_until`: code that outlives its event, and has no turn to rely on."""
        play = Play(self.subject, self.world.next_name(self.who))
        play.within = self.who if self.in_section else None
        self.subject.ctx.wait_until(play._loosely(changes, aborts))

    async def _loosely(self, changes: list[list[Effect]], aborts: bool) -> None:
        for effects in changes:
            await self.pause()
            try:
                self.change_now(effects)
            except ConflictError as error:
                assert error.code == "storage_busy", error  # noqa: PT017
        if aborts:
            await self.pause()
            await self.abort()

    # --- critical sections --------------------------------------------------------------------

    async def block(self, script: Script) -> None:
        inner, outer = self._inner()
        await self.subject.ctx.block_concurrency_while(lambda: inner.blocking(script, outer))
        self.fresh = True

    async def section(self, script: Script, outer: str | None) -> None:
        """The body of a critical section, within that of ``outer``."""
        self.in_section = True
        self.life.enter(self.who, outer)
        try:
            await self.all(script)
        finally:
            self.life.leave()

    async def blocking(self, script: Script, outer: str | None) -> None:
        """`section`, as the body of block_concurrency_while: if it fails, the object is reset."""
        try:
            await self.section(script, outer)
        except Exception:
            self.life.over = self.life.may_lose = True
            raise

    async def transaction(self, script: Script, ending: str) -> None:
        """``ending``: "commit", "roll back", or "raise"."""
        inner, outer = self._inner()

        async def body(txn: Any) -> None:
            self.life.begin()
            try:
                await inner.section(script, outer)
                self.world.counts[f"transactions: {ending}"] += 1
                if ending == "raise":
                    raise AskedForError
            except BaseException:
                self._roll_back()
                raise
            if ending == "roll back":
                txn.rollback()
                self._roll_back()
            else:
                self.life.commit()

        try:
            await self.storage.transaction(body)
        except AskedForError:
            if ending != "raise":
                raise
        finally:
            self.fresh = True

    def _roll_back(self) -> None:
        self.subject.undid()
        self.life.roll_back()

    def _inner(self) -> tuple[Play, str | None]:
        who = self.world.next_name(self.who)
        return Play(self.subject, who, in_section=True), self.who if self.in_section else None
