"""The world of one run: what the seed decides, what the outside has seen, and what is durable."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from random import Random
from typing import Any

import apsw

from dosql.errors import DosqlError
from dosql.host.catalog import CATALOG_KEY
from dosql.limits import SECTION_S_MAX
from dosql.log.records import ObjectKey
from dosql.testing.clock import ManualClock
from dosql.testing.memory_log import MemoryLog
from tests.simulation.model import AskedForError, Life, Unit, Violation
from tests.simulation.scripts import Script, Scripts

ALARM_SCRIPTS_MAX = 3
"""Runs of one alarm that may fail: far fewer than make it be given up."""
EXPECTED = {
    "object_reset",
    "object_recovering",
    "commit_failed",
    "outcome_unknown",
    "object_deadlock",
    "section_timeout",
    "object_busy",
    "storage_busy",
    "shutting_down",
}
"""Codes of errors that an event may end with here; the last one in a process that is gone, if the
event had not begun."""


class SeededRandomness:
    """`dosql.clock.Randomness` from the run's own generator."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def token_urlsafe(self, count: int) -> str:
        return self._random.randbytes(count).hex()


class World:
    """Shared by the objects' code and by the simulation that drives it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.clock = ManualClock()
        self.names = ["ann", "ben", "cat"][: self.random.choice([1, 2, 2, 3])]
        self.scripts = Scripts(self.random, self.names)
        self.trace: list[str] = []
        self.violations: list[str] = []
        self.counts = Counter[str]()
        """How often each thing happened that a run is there for."""
        self.lives: dict[str, Life] = {}
        self.acknowledged: dict[str, set[int]] = {name: set() for name in self.names}
        self.pauses: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self.quiet = False
        """The run comes to its end: nothing new is begun."""
        self._numbers = Counter[str]()
        self._alarm_runs = Counter[tuple[str, str, int]]()
        self._wiped: dict[int, set[int]] = {}
        """By the unit that emptied an object: all units before it."""
        self._durable: dict[str, tuple[bytes, set[int]]] = {}
        self._catalog = b""
        self._keys: dict[str, ObjectKey] = {}
        self._log: MemoryLog

    def use(self, log: MemoryLog) -> None:
        """Look at this log from now on."""
        self._log = log

    def note(self, text: str) -> None:
        """Remember what happened, for whoever reads about a failure."""
        self.trace.append(text)

    def violated(self, text: str) -> Violation:
        """Remember a broken promise, and make the error for it."""
        self.note(f"VIOLATION {text}")
        self.violations.append(text)
        return Violation(text)

    def check_error(self, who: str, what: str, error: Exception) -> None:
        """An exception in the object's code must be one of those that belong to the game."""
        if isinstance(error, AskedForError | Violation):
            return
        if not isinstance(error, DosqlError) or error.code not in EXPECTED:
            raise self.violated(f"{who}: {what}: {error!r}") from error

    def check_all(self, failures: list[str]) -> None:
        """Nothing went wrong so far, seen or unseen."""
        if failures:
            raise self.violated(f"unseen: {failures}")
        if self.violations:
            raise Violation(self.violations[0])

    def next_id(self) -> int:
        """The id of a unit."""
        self._numbers["unit"] += 1
        return self._numbers["unit"]

    def next_name(self, of: str) -> str:
        """A new name for an event, or for a part of one."""
        self._numbers[of] += 1
        return f"{of}.{self._numbers[of]}"

    def next_time(self, delay_ms: int) -> int:
        """A time that no other alarm has."""
        self._numbers["alarm time"] += 1
        return self.clock.now_ms() + delay_ms + self._numbers["alarm time"]

    # --- what the objects' code asks ----------------------------------------------------------

    async def pause(self, who: str) -> None:
        """Wait until the simulation lets ``who`` go on."""
        self._numbers["pause"] += 1
        number = self._numbers["pause"]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pauses[number] = who, future
        try:
            await future
        finally:
            self.pauses.pop(number, None)

    def go_on(self, number: int) -> None:
        """End one pause."""
        who, future = self.pauses.pop(number)
        self.note(f"{who} goes on")
        if not future.done():
            future.set_result(None)

    def constructor_script(self) -> Script:
        """What the constructor does in a critical section; mostly nothing."""
        return self.scripts.section() if self.random.random() < 0.15 and not self.quiet else []

    def alarm_began(self, life: Life, info: Any) -> Script:
        """An alarm runs: it must be one that is set, and due. What its handler does."""
        now_ms = self.clock.now_ms()
        self.note(f"{life.name}: alarm {info.name!r} of {info.scheduled_time} runs at {now_ms}")
        if info.scheduled_time > now_ms:
            raise self.violated(f"{life.name}: alarm {info} runs early, at {now_ms}")
        if life.now.alarms.get(info.name) != info.scheduled_time:
            raise self.violated(f"{life.name}: alarm {info} runs, and is not set: {life.now}")
        self.counts["alarms"] += 1
        self._alarm_runs[life.name, info.name, info.scheduled_time] += 1
        runs = self._alarm_runs[life.name, info.name, info.scheduled_time]
        if self.quiet or runs > ALARM_SCRIPTS_MAX or self.random.random() < 0.25:
            return []
        return self.scripts.draw(1)

    def check_message(self, life: Life, tag: str, attachment: Any, number: int) -> None:
        """Messages of a socket come in order, and its attachment survives what the socket does."""
        self.counts["messages"] += 1
        if attachment["tag"] != tag or attachment["messages"] != number - 1:
            raise self.violated(f"{life.name}: message {number} of {tag} meets {attachment}")

    # --- lives --------------------------------------------------------------------------------

    def woke(self, name: str) -> Life:
        """A new life begins, from what is durable now."""
        before = self.lives.get(name)
        life = self._revived(name)
        if before is not None and not before.over:
            self.counts["hibernations"] += 1
            before.over = True
        self.lives[name] = life
        self.note(f"{name} wakes with {len(life.units)} units")
        return life

    def wiped(self, life: Life, id: int) -> None:
        """The object was emptied, and this unit says so."""
        self._wiped[id] = {id for unit in life.units for id in unit.ids}

    def crashes(self) -> None:
        """All lives end now."""
        self.counts["crashes"] += 1
        for name, life in self.lives.items():
            life.over = life.may_lose = True
            self.lives[name] = self._revived(name)
            self.lives[name].over = True

    def loses(self, name: str) -> None:
        """This object has just been reset."""
        if name in self.lives:
            self.counts["resets"] += 1
            self.lives[name].over = self.lives[name].may_lose = True

    def loses_catalog(self) -> None:
        """Whoever needs the catalog before it is back is reset."""
        for life in self.lives.values():
            life.may_lose = True

    def passes(self, seconds: float) -> None:
        """Time passes: critical sections may take too long."""
        for life in self.lives.values():
            life.blocked_s = life.blocked_s + seconds if life.in_section else 0.0
            if life.blocked_s >= SECTION_S_MAX:
                life.may_lose = True

    def alarms_left(self) -> dict[str, dict[str, int]]:
        """All alarms that are set and durable."""
        left = {name: self._revived(name).now.alarms for name in self.lives}
        return {name: alarms for name, alarms in left.items() if alarms}

    def _revived(self, name: str) -> Life:
        """The life that the object would wake to now. Checks that nothing is lost that must not
        be, and that nothing is half there."""
        durable = self.durable(name)
        before = self.lives.get(name)
        units: list[Unit] = []
        if before is not None:
            units = before.survivors(durable)
            self.counts["changes lost"] += len(before.units) - len(units)
        elif durable:
            raise self.violated(f"{name} wakes for the first time and has {durable}")
        lost = self.acknowledged[name] - durable
        if lost:
            raise self.violated(f"{name}: {sorted(lost)} were seen outside and are gone")
        copies = [Unit(list(each.ids), list(each.effects), each.confirmed) for each in units]
        return Life(name, copies, self.violated)

    def durable(self, name: str) -> set[int]:
        """The ids of the units of the object that would be there after a crash now."""
        images = self._log.images
        catalog = images[CATALOG_KEY].content
        if catalog is not self._catalog:
            self._catalog, self._keys = catalog, _keys(catalog)
        key = self._keys.get(name)
        if key is None or key not in images:
            return set()
        content = images[key].content
        known = self._durable.get(name)
        if known is None or known[0] is not content:
            ids = _ids(content)
            for id in ids & self._wiped.keys():
                ids |= self._wiped[id]
            known = self._durable[name] = content, ids
        return known[1]

    # --- what leaves --------------------------------------------------------------------------

    def check_visible(self, seen: list[Any] | None, what: str) -> None:
        """Something left an object that reflects its state as of a unit: that must be durable."""
        if seen is None or seen[1] == 0:
            return
        name, position = seen
        if position not in self.durable(name):
            raise self.violated(f"{what} shows unit {position} of {name}, which is not durable")
        self.acknowledged[name].add(position)
        self.counts["changes seen outside"] += 1


def _ids(content: bytes) -> set[int]:
    with closing(_opened(content)) as connection:
        sql = "SELECT name FROM sqlite_schema WHERE name IN ('units', '_dosql_kv')"
        ids: set[int] = set()
        for (table,) in connection.execute(sql).fetchall():
            if table == "units":
                ids |= {id for (id,) in connection.execute("SELECT id FROM units")}
            else:
                keys = connection.execute("SELECT key FROM _dosql_kv WHERE key GLOB 'unit *'")
                ids |= {int(key.split()[1]) for (key,) in keys}
        return ids


def _keys(content: bytes) -> dict[str, ObjectKey]:
    with closing(_opened(content)) as connection:
        rows = connection.execute("SELECT name, id, incarnation FROM objects")
        return {name: ObjectKey(id, incarnation) for name, id, incarnation in rows}


def _opened(content: bytes) -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", content)
    return connection
