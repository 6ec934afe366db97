"""The world of one run: what the seed decides, what the outside may see, and what it has seen."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import apsw

from dosql.testing.clock import ManualClock
from dosql.testing.memory import MemoryLog
from tests.simulation.model import Life, Unit, Violation
from tests.simulation.scripts import Script, Scripts

ALARM_FAILURES_MAX = 2
"""Per alarm: far fewer than make it be given up."""


class World:
    """Shared by the objects' code and by the simulation that drives it."""

    def __init__(self, seed: int, names: list[str], log: Callable[[], MemoryLog]) -> None:
        self.random = Random(seed)
        self.clock = ManualClock()
        self.names = names
        self.scripts = Scripts(self.random, names)
        self.trace: list[str] = []
        self.violations: list[str] = []
        self.lives: dict[str, Life] = {}
        self.acknowledged: dict[str, set[int]] = {name: set() for name in names}
        self.pauses: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self.quiet = False
        """The run comes to its end: nothing new is begun."""
        self._log = log
        self._numbers = Counter[str]()
        self._alarm_failures = Counter[tuple[str, str, int]]()
        self._durable: dict[str, tuple[bytes, set[int]]] = {}
        self.find_key: Callable[[str], Any] = lambda name: None

    def note(self, text: str) -> None:
        """Remember what happened, for whoever reads about a failure."""
        self.trace.append(text)

    def violated(self, text: str) -> Violation:
        """Report a broken promise, also from where nobody would see the exception."""
        self.note(f"VIOLATION {text}")
        self.violations.append(text)
        return Violation(text)

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
        self._numbers["alarm"] += 1
        return self.clock.now_ms() + delay_ms + self._numbers["alarm"]

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
            del self.pauses[number]

    def go_on(self, number: int) -> None:
        """End one pause."""
        who, future = self.pauses[number]
        self.note(f"{who} goes on")
        if not future.done():
            future.set_result(None)

    def constructor_script(self) -> Script:
        """What the constructor does in a critical section; mostly nothing."""
        return self.scripts.section() if self.random.random() < 0.15 and not self.quiet else []

    def alarm_script(self) -> Script:
        return self.scripts.draw(1) if self.random.random() < 0.6 and not self.quiet else []

    def may_fail(self, name: str, alarm: str, at_ms: int) -> bool:
        """Whether this alarm's handler may fail once more."""
        self._alarm_failures[name, alarm, at_ms] += 1
        return self._alarm_failures[name, alarm, at_ms] <= ALARM_FAILURES_MAX

    # --- lives --------------------------------------------------------------------------------

    def woke(self, name: str) -> Life:
        """A new life begins, from what is durable now."""
        durable = self.durable(name)
        before = self.lives.get(name)
        units: list[Unit] = []
        if before is not None:
            before.over = True
            units = before.survivors(durable)
        elif durable:
            raise Violation(f"{name} wakes for the first time and has {durable}")
        self.check_acknowledged(name)
        self.note(f"{name} wakes with {len(units)} units")
        life = self.lives[name] = Life(name, units)
        return life

    def durable(self, name: str) -> set[int]:
        """The ids of the units in the object's durable image."""
        image = self._log().images.get(self.find_key(name))
        if image is None:
            return set()
        known = self._durable.get(name)
        if known is None or known[0] is not image.content:
            known = self._durable[name] = image.content, _ids(image.content)
        return known[1]

    # --- what leaves --------------------------------------------------------------------------

    def check_visible(self, seen: list[Any] | None, what: str) -> None:
        """Something left an object that reflects its state as of a unit: that must be durable."""
        if seen is not None:
            name, position = seen
            if position and position not in self.durable(name):
                raise self.violated(f"{what}: {name} showed unit {position}, which is not durable")
            if position:
                self.acknowledged[name].add(position)

    def check_acknowledged(self, name: str) -> None:
        """What was seen is never undone."""
        lost = self.acknowledged[name] - self.durable(name)
        if lost:
            raise self.violated(f"{name}: {sorted(lost)} were seen outside and are gone")


def _ids(content: bytes) -> set[int]:
    connection = apsw.Connection(":memory:")
    try:
        if not content:
            return set()
        connection.deserialize("main", content)
        ids: set[int] = set()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        if "units" in tables:
            ids |= {id for (id,) in connection.execute("SELECT id FROM units")}
        if "_dosql_kv" in tables:
            keys = connection.execute("SELECT key FROM _dosql_kv WHERE key GLOB 'unit *'")
            ids |= {int(key.split()[1]) for (key,) in keys}
        return ids
    finally:
        connection.close()
