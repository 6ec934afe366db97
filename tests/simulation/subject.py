"""The class under simulation: it plays scripts, and tells the model what it did."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from dosql import DurableObject, Request, Response, WebSocketPair
from tests.simulation.model import AskedForError, Effect, Life, State
from tests.simulation.play import Play

if TYPE_CHECKING:
    from tests.simulation.world import World

Script = list[list[Any]]


class Subject(DurableObject):
    """Everything that an object can do, on demand; `Play` says what there is."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.world: World = env.WORLD
        self._has_tables = False
        self.life: Life = self.world.woke(ctx.id.name)
        self.compare("wake")
        script = self.world.constructor_script()
        if script:
            play = Play(self, self.world.next_name(f"wake {self.life.name}"))
            ctx.block_concurrency_while(lambda: play.blocking(script, None))

    # --- events -------------------------------------------------------------------------------

    async def run(self, who: str, script: Script, cause: list[Any] | None = None) -> int:
        """An RPC; the answer is the position that it shows. ``cause``: the object that called,
        and what of it must be durable by now."""
        self.world.check_visible(cause, f"the call {who}")
        try:
            await Play(self, who).all(script)
        except AskedForError as error:
            raise ValueError(self.life.position) from error
        return self.life.position

    def peek(self, who: str) -> int:
        """An RPC that never waits."""
        self.compare(who)
        return self.life.position

    async def fetch(self, request: Request) -> Response:
        if request.is_websocket_upgrade:
            return self._accept(request.query["tag"])
        who, script = await request.json()
        await Play(self, who).all(script)
        return Response(str(self.life.position))

    def _accept(self, tag: str) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server, [tag])
        server.serialize_attachment({"tag": tag, "messages": 0})
        return Response(status=101, web_socket=client)

    async def websocket_message(self, ws: Any, message: str) -> None:
        who, number, script = json.loads(message)
        attachment = ws.deserialize_attachment()
        self.world.check_message(self.life, ws.tags[0], attachment, number)
        attachment["messages"] = number
        ws.serialize_attachment(attachment)
        with contextlib.suppress(AskedForError):
            await Play(self, who).all(script)
        if ws.ready_state == ws.OPEN:
            ws.send(f"{self.life.position} answers {who}")

    async def websocket_close(self, ws: Any, code: int, reason: str, was_clean: bool) -> None:
        await Play(self, f"close {ws.tags[0]}").all([["change", [["row", "closed"]], True]])

    async def alarm(self, info: Any) -> None:
        """It ends, in the model too, with the last change of the handler."""
        who = self.world.next_name("alarm")
        self.life.step(who)
        script = self.world.alarm_began(self.life, info)
        self.life.running[info.name] = info.scheduled_time
        try:
            play = Play(self, who)
            await play.all(script)
            play.change_now([["fired", info.name, info.scheduled_time]])
        finally:
            self.life.running.pop(info.name, None)

    # --- storage ------------------------------------------------------------------------------

    def stored(self) -> State:
        """All that the object has stored, by way of its public faces."""
        storage = self.ctx.storage
        state = State()
        for key, value in storage.kv.list():
            if not key.startswith("unit "):
                state.kv[key] = value
        if self.has_tables():
            cursor = storage.sql.exec("SELECT text FROM rows ORDER BY id")
            state.rows = [text for (text,) in cursor.raw()]
        for alarm in storage.alarms.list():
            state.alarms[alarm.name] = alarm.time
        return state

    def compare(self, who: str) -> None:
        """The object's storage is what the model says."""
        self.life.step(who)
        self.life.compare(who, self.stored())

    def apply(self, effects: list[Effect], id: int, *, confirmed: bool = True) -> None:
        """Make the changes, each by the face it is for, and store the unit's id with them."""
        storage = self.ctx.storage
        if not confirmed:
            for effect in effects:
                self._apply_unconfirmed(effect)
            storage.put(f"unit {id}", id, allow_unconfirmed=True)
            return
        if not self.has_tables():
            storage.sql.exec(
                "CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT);"
                "CREATE TABLE units (id INTEGER PRIMARY KEY)"
            )
            self._has_tables = True
        for effect in effects:
            self._apply(effect)
        storage.sql.exec("INSERT INTO units (id) VALUES (?)", id)

    def _apply(self, effect: Effect) -> None:
        storage = self.ctx.storage
        match effect:
            case ["put", key, value]:
                storage.kv.put(key, value)
            case ["delete", key]:
                storage.kv.delete(key)
            case ["row", text]:
                storage.sql.exec("INSERT INTO rows (text) VALUES (?)", text)
            case ["alarm", "", at_ms]:
                storage.set_alarm(at_ms)
            case ["alarm", name, at_ms]:
                storage.alarms.schedule(name, at=at_ms)
            case ["alarm again", name, _]:
                storage.alarms.delete(name)
            case ["no alarm", ""]:
                storage.delete_alarm()
            case ["no alarm", name]:
                storage.alarms.delete(name)

    def _apply_unconfirmed(self, effect: Effect) -> None:
        """What has a choice: `put`, and the alarm without a name."""
        storage = self.ctx.storage
        match effect:
            case ["put", key, value]:
                storage.put(key, value, allow_unconfirmed=True)
            case ["alarm", _, at_ms]:
                storage.set_alarm(at_ms, allow_unconfirmed=True)
            case ["no alarm" | "alarm again", *_]:
                storage.delete_alarm(allow_unconfirmed=True)
            case _:
                raise AssertionError(effect)

    def has_tables(self) -> bool:
        if not self._has_tables:
            sql = "SELECT 1 FROM sqlite_schema WHERE name = 'units'"
            self._has_tables = bool(self.ctx.storage.sql.exec(sql).to_list())
        return self._has_tables

    def undid(self) -> None:
        """Something was undone, perhaps the tables too."""
        self._has_tables = False
