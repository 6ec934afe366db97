"""An event loop without threads, network or time of its own: the same run, every time."""

from __future__ import annotations

import asyncio
from typing import Any

from dosql.testing.clock import ManualClock


class StuckError(Exception):
    """The simulation itself waits for something that cannot happen."""


class SimulationLoop(asyncio.BaseEventLoop):
    """Runs what is ready, first come, first served. Its time is that of a `ManualClock`."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._selector = _NoNetwork()
        self._clock = clock
        self.failures: list[str] = []
        """What went wrong in callbacks, and exceptions that nobody looked at."""
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._clock.monotonic()

    async def settle(self) -> None:
        """Return when everything waits: for time, for the disk, or for the simulation."""
        ready = self._ready  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        while ready:
            await asyncio.sleep(0)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context['message']}: {context.get('exception')!r}")

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector here."""


class _NoNetwork:
    def select(self, timeout: float | None) -> list[object]:
        if timeout == 0:
            return []
        raise StuckError("nothing is ready, and nothing will be")
