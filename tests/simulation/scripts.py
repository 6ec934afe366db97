"""Random scripts: what one event does, drawn from the seed."""

from __future__ import annotations

from random import Random
from typing import Any

Script = list[list[Any]]

_KEYS = ("x", "y", "z")
_ALARMS = ("", "", "tea")


class Scripts:
    """All that an event may do, by weight."""

    def __init__(self, random: Random, names: list[str]) -> None:
        self._random = random
        self._names = names

    def draw(self, depth: int = 2, *, in_section: bool = False) -> Script:
        """A script of a few operations, nested at most ``depth`` deep."""
        return [self._operation(depth, in_section) for _ in range(self._random.randint(1, 4))]

    def section(self) -> Script:
        """Something for a constructor to block on."""
        return self.draw(1, in_section=True)

    def _operation(self, depth: int, in_section: bool) -> list[Any]:
        random = self._random
        words = {
            "change": 30,
            "pause": 22,
            "read": 8,
            "send": 6,
            "transaction_sync": 5,
            "sync": 3,
            "fail": 1,
            "abort": 0.4,
            "wipe": 0.6,
            "later": 2,
            "on thread": 2,
        }
        if in_section:
            words["increment"] = 12
        if depth > 0:
            words |= {"transaction": 9, "block": 7, "call": 8}
        word = random.choices(list(words), list(words.values()))[0]
        match word:
            case "change":
                return [word, self._effects(), random.random() > 0.1]
            case "transaction_sync":
                return [word, self._effects(), random.random() > 0.4]
            case "transaction":
                ending = random.choice(["commit", "commit", "roll back", "raise"])
                return [word, self.draw(depth - 1, in_section=True), ending]
            case "block":
                return [word, self.draw(depth - 1, in_section=True)]
            case "call":
                return [word, random.choice(self._names), self.draw(depth - 1)]
            case "later":
                aborts = random.random() < 0.15
                return [word, [self._effects() for _ in range(random.randint(1, 2))], aborts]
            case "on thread":
                return [word, f"thread {random.randrange(1000)}"]
            case _:
                return [word]

    def _effects(self) -> list[list[Any]]:
        return [self._effect() for _ in range(self._random.choice([1, 1, 2, 3]))]

    def _effect(self) -> list[Any]:
        random = self._random
        match random.choices(["put", "row", "delete", "alarm", "no alarm"], [5, 4, 1, 2.5, 0.4])[0]:
            case "put":
                return ["put", random.choice(_KEYS), random.randrange(100)]
            case "row":
                return ["row", f"row {random.randrange(100)}"]
            case "delete":
                return ["delete", random.choice(_KEYS)]
            case "alarm":
                return ["alarm", random.choice(_ALARMS), random.choice([1, 50, 2_000, 40_000])]
            case _:
                return ["no alarm", random.choice(_ALARMS)]
