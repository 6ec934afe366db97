"""OutputGate: nothing leaves an object before what it wrote earlier is durable.

A reply, a frame to a socket, a call of another object: each waits for every confirmed commit
before it, and they leave in the order in which they were handed over. When the object breaks,
what waits is dropped: the outside never hears of a state that did not survive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from dosql.errors import DosqlError
from dosql.objects.ground import Ground

Action = Callable[[], None]


class OutputGate:
    """The gate of one activation. It knows of commits only what `committed` tells it."""

    def __init__(self, ground: Ground) -> None:
        self.txid = 0
        """Newest batch that what leaves now must wait for."""
        self.broken: DosqlError | None = None
        self._ground = ground
        self._undecided: list[tuple[Action, Action | None]] = []
        """Handed over while a transaction was open: nobody knows its batch yet."""
        self._waiting: deque[tuple[int, Action, Action | None]] = deque()
        self._leaving = 0
        """Calls of `wait` that have not returned yet, though the gate may have opened for them."""

    def emit(self, action: Action, on_drop: Action | None = None, *, undecided: bool) -> None:
        """Run ``action`` when all earlier writes are durable: at once, if they are.

        ``undecided``: a transaction is open; `decided` will say what became of it.
        """
        if self.broken is not None:
            if on_drop is not None:
                on_drop()
        elif undecided:
            self._undecided.append((action, on_drop))
        elif self._waiting or not self._passes(self.txid):
            self._waiting.append((self.txid, action, on_drop))
        else:
            action()

    def committed(self, txid: int) -> None:
        """A confirmed write was committed as part of batch ``txid``."""
        self.txid = txid

    def decided(self) -> None:
        """No transaction is open any more: what was handed over meanwhile waits for `txid`."""
        if self._undecided:
            undecided, self._undecided = self._undecided, []
            self._waiting.extend((self.txid, action, drop) for action, drop in undecided)
            self.release()

    def release(self) -> None:
        """Let out what no longer has to wait."""
        waiting = self._waiting
        while waiting and self.broken is None and self._passes(waiting[0][0]):
            waiting.popleft()[1]()

    def break_(self, error: DosqlError) -> None:
        """Drop what waits, and whatever comes from now on."""
        if self.broken is None:
            self.broken = error
            dropped = [drop for _, _, drop in self._waiting]
            dropped += [drop for _, drop in self._undecided]
            self._waiting.clear()
            self._undecided.clear()
            for drop in dropped:
                if drop is not None:
                    drop()

    @property
    def is_open(self) -> bool:
        """Whether nothing waits and nothing would have to."""
        return not self._waiting and not self._undecided and self._passes(self.txid)

    async def wait(self, *, undecided: bool = False) -> None:
        """Return when all that was written before is durable.

        Raises:
            DosqlError: it is not to be.
        """
        if not undecided and self.is_open and not self._leaving and self.broken is None:
            return
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()

        def open_() -> None:
            if not opened.done():
                opened.set_result(None)

        def pass_() -> None:
            if self._leaving > 1:  # others may be about to go on, and come first
                loop.call_soon(open_)
            else:
                open_()

        self._leaving += 1
        try:
            self.emit(pass_, open_, undecided=undecided)
            await opened
        finally:
            self._leaving -= 1
        if self.broken is not None:
            raise type(self.broken)(self.broken.message, code=self.broken.code)

    def _passes(self, txid: int) -> bool:
        return self._ground.durable_txid >= txid
