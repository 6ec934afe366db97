"""An event loop without threads, network or time of its own: the same run, every time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dosql.testing.clock import ManualClock, ManualTimer


class StuckError(Exception):
    """The simulation itself waits for something that cannot happen."""


class SimulationLoop(asyncio.BaseEventLoop):
    """Runs what is ready, first come, first served. Its time and timers are a `ManualClock`'s."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._selector = _NoNetwork()
        self._clock = clock
        self.failures: list[str] = []
        """What went wrong in callbacks, and exceptions that nobody looked at."""
        self._manual: dict[asyncio.TimerHandle, ManualTimer] = {}
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._clock.monotonic()

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def due() -> None:
            del self._manual[handle]
            self.call_soon(callback, *args, context=context)

        self._manual[handle] = self._clock.call_later(when - self.time(), due)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        timer = self._manual.pop(handle, None)
        if timer is not None:
            timer.cancel()

    async def settle(self) -> None:
        """Return when everything waits: for time, for the disk, or for the simulation."""
        ready: Any = vars(self)["_ready"]
        is_done = False
        while not is_done:
            await asyncio.sleep(0)
            is_done = not ready

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
