"""Settled: the result of storage work that was done when it was asked for."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Settled(Generic[T_co]):
    """Awaiting it gives the result at once, without letting other events in. Not awaiting it
    loses nothing: the work is done, and an error was raised by the call itself."""

    __slots__ = ("_result",)

    def __init__(self, result: T_co) -> None:
        self._result = result

    def __await__(self) -> Generator[Any, None, T_co]:
        yield from ()  # a generator that never waits
        return self._result

    def __repr__(self) -> str:
        return f"<await it: {self._result!r}>"
