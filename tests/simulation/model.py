"""A plain Python model of one object: what it holds, and which of its changes a crash may undo.

A *unit* is what becomes durable whole or not at all: the writes of one step, or of one
transaction. The durable state of an object is always that after its first k units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Effect = list[Any]
"""``["put", key, value]``, ``["delete", key]``, ``["row", text]``, ``["alarm", name, ms]``,
``["alarm again", name, ms]`` (what runs, when a later time is deleted), ``["no alarm", name]``,
``["fired", name, ms]``, ``["wipe"]``."""


class Violation(AssertionError):
    """A promise was broken."""


class AskedForError(Exception):
    """What a script raises because it says so."""


@dataclass
class State:
    """What an object has stored."""

    kv: dict[str, int] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    alarms: dict[str, int] = field(default_factory=dict)

    def apply(self, effect: Effect) -> None:
        match effect:
            case ["put", key, value]:
                self.kv[key] = value
            case ["delete", key]:
                self.kv.pop(key, None)
            case ["row", text]:
                self.rows.append(text)
            case ["alarm" | "alarm again", name, at_ms]:
                self.alarms[name] = at_ms
            case ["no alarm", name]:
                self.alarms.pop(name, None)
            case ["fired", name, at_ms]:
                if self.alarms.get(name) == at_ms:
                    del self.alarms[name]
            case ["wipe"]:
                self.kv.clear()
                self.rows.clear()
                self.alarms.clear()
            case _:
                raise AssertionError(effect)

    def copy(self) -> State:
        return State(dict(self.kv), list(self.rows), dict(self.alarms))


@dataclass
class Unit:
    """One all-or-nothing change. ``ids`` are stored with it, so that it can be found again."""

    ids: list[int]
    effects: list[Effect]
    confirmed: bool = True
    """Nothing may leave the object before it is durable."""


class Life:
    """The model of one life of an object in memory, from the state it woke with.

    ``violated`` makes, and remembers, the error for a broken promise: the object's code is no
    place from which an exception would surely be seen.
    """

    def __init__(self, name: str, units: list[Unit], violated: Callable[[str], Violation]) -> None:
        self.name = name
        self.violated = violated
        self.units = units
        self.over = False
        """None of its code may run any more: it was reset, or replaced by a newer life."""
        self.may_lose = False
        """Something happened that undoes what is not durable."""
        self.latest = ""
        """Whose step was the latest."""
        self.blocked_s = 0.0
        """How long there has been a critical section."""
        self.now = State()
        for unit in units:
            for effect in unit.effects:
                self.now.apply(effect)
        self.running: dict[str, int] = {}
        """Alarms whose handlers run, and the times they were set for: gone for the object's code,
        and stored all the same, until the handler has ended."""
        self._open: list[tuple[int, State]] = []
        self._holders: list[str] = []

    # --- what the object's code does ----------------------------------------------------------

    def step(self, who: str, *, within: str | None = None) -> None:
        """Code of ``who`` runs now; ``within``: whose critical section it was started in."""
        if self.over:
            raise self.violated(f"{self.name}: {who} runs in a life that is over")
        if self._holders and self._holders[-1] not in (who, within):
            raise self.violated(
                f"{self.name}: {who} runs while {self._holders[-1]} has a critical section"
            )
        self.latest = who

    def change(self, unit: Unit, *, joins: bool) -> None:
        """Code made these changes in its step; ``joins``: they are not its first."""
        for effect in unit.effects:
            self.now.apply(effect)
        if joins and self.units:
            last = self.units[-1]
            last.ids += unit.ids
            last.effects += unit.effects
            last.confirmed = last.confirmed or unit.confirmed
        else:
            self.units.append(unit)

    def enter(self, who: str, outer: str | None) -> None:
        """A critical section of ``who`` begins, within that of ``outer``."""
        holder = self._holders[-1] if self._holders else None
        if self.over or holder != outer:
            raise self.violated(
                f"{self.name}: {who} enters a critical section within that of {holder}"
            )
        self._holders.append(who)

    def leave(self) -> None:
        if not self.over:
            self._holders.pop()

    @property
    def in_section(self) -> bool:
        return bool(self._holders)

    def begin(self) -> None:
        self._open.append((len(self.units), self.now.copy()))

    def commit(self) -> None:
        """The innermost transaction ends well; the outermost one becomes a single unit."""
        if self.over:
            return
        start, _ = self._open.pop()
        if not self._open and len(self.units) > start:
            parts = self.units[start:]
            ids = [id for part in parts for id in part.ids]
            effects = [effect for part in parts for effect in part.effects]
            self.units[start:] = [Unit(ids, effects)]

    def roll_back(self) -> None:
        if not self.over:
            start, self.now = self._open.pop()
            del self.units[start:]

    # --- what the outside sees ----------------------------------------------------------------

    def compare(self, who: str, stored: State) -> None:
        """What is stored is what was done."""
        expected = self.now
        if self.running:
            expected = expected.copy()
            for name, at_ms in self.running.items():
                if expected.alarms.get(name) == at_ms:
                    del expected.alarms[name]
        if stored != expected:
            raise self.violated(f"{self.name}: {who} finds {stored} instead of {expected}")

    @property
    def position(self) -> int:
        """The newest change that what leaves now must wait for; 0: none."""
        end = self._open[0][0] if self._open else len(self.units)
        for unit in reversed(self.units[:end]):
            if unit.confirmed:
                return unit.ids[-1]
        return 0

    @property
    def newest(self) -> int:
        """The newest change, whatever leaves; 0: none."""
        end = self._open[0][0] if self._open else len(self.units)
        return self.units[end - 1].ids[-1] if end else 0

    def survivors(self, durable: set[int]) -> list[Unit]:
        """The units that are durable. Raises Violation unless they are the first ones, whole."""
        units = self.units[: self._open[0][0]] if self._open else self.units
        kept: list[Unit] = []
        lost: Unit | None = None
        for unit in units:
            found = durable.intersection(unit.ids)
            if found and len(found) < len(unit.ids):
                raise self.violated(f"{self.name}: half of {unit} is durable: {sorted(found)}")
            if found and lost is not None:
                raise self.violated(f"{self.name}: {unit} is durable, {lost} before it is not")
            if found:
                kept.append(unit)
            else:
                lost = lost or unit
        unknown = durable - {id for unit in units for id in unit.ids}
        if unknown:
            raise self.violated(f"{self.name}: stored, but never made or undone: {sorted(unknown)}")
        if lost is not None and not self.may_lose:
            raise self.violated(f"{self.name}: {lost} is gone, and nothing had failed")
        return kept
