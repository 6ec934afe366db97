"""Watches: what ends a stream whose principal may not read it any more.

A request is checked when it comes; a stream stays. While there are any, each second those are
looked at whose tenant changed; that is a look-up in memory, for `Sessions` remembers. A tenant that
sleeps is not woken for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from dosql.errors import DosqlError
from dosql.limits import SESSION_CHECK_S_MAX, SESSION_SWEEP_S

StillValid = Callable[[], bool | Awaitable[bool]]
"""Answers at once if it can."""
_log = logging.getLogger("dosql.server")


class Watch(msgspec.Struct, eq=False):
    """One stream."""

    still_valid: StillValid
    revoked: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set when the stream is to end."""


class Watches:
    """All streams of the node that somebody was let into."""

    def __init__(self, *, every_s: float = SESSION_SWEEP_S) -> None:
        self._every_s = every_s
        self._watches: set[Watch] = set()
        self._sweeping: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._watches)

    @contextlib.contextmanager
    def watch(self, still_valid: StillValid) -> Iterator[Watch]:
        """Within this context `Watch.revoked` is set soon after ``still_valid`` says no."""
        watch = Watch(still_valid)
        self._watches.add(watch)
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._run())
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            if not self._watches and self._sweeping is not None:
                self._sweeping.cancel()
                self._sweeping = None

    async def sweep(self) -> None:
        """Ask for every stream once. One that cannot be asked about stays for now."""
        slow: list[Awaitable[None]] = []
        for watch in list(self._watches):
            try:
                valid = watch.still_valid()
            except DosqlError as error:
                _log.warning("a session behind a stream could not be checked: %s", error)
                continue
            if valid is False:
                watch.revoked.set()
            elif valid is not True:
                slow.append(_ask(watch, valid))
        if slow:  # a tenant that is busy must not keep the others' streams open
            await asyncio.gather(*slow)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.sweep()


async def _ask(watch: Watch, valid: Awaitable[bool]) -> None:
    try:
        async with asyncio.timeout(SESSION_CHECK_S_MAX):
            if not await valid:
                watch.revoked.set()
    except (DosqlError, TimeoutError) as error:
        _log.warning("a session behind a stream could not be checked: %s", error)
