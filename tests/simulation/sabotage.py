"""Broken variants of the product: the simulation must find each, or it finds nothing.

Each replaces a component while it is entered; the product itself has no switch for any of it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from unittest.mock import patch

from dosql.objects import alarm_table
from dosql.objects.alarm_store import AlarmStore
from dosql.objects.life import Life
from dosql.objects.turns import Turns
from dosql.testing.memory_host import MemoryHost
from tests.simulation.simulation import Simulation


class OpenTurns(Turns):
    """Everybody may have the turn at any time."""

    def try_enter(self) -> bool:
        return True

    async def enter(self, *, bounded: bool = True) -> None:
        """Never waits."""

    def leave(self) -> None:
        """Nobody waits."""


class ForgetfulHost(MemoryHost):
    """At its start it does not look for the alarms that were set before."""

    async def start(self) -> None:
        catalog = await self._wake_catalog()
        catalog.run_inline(lambda db: db.run("UPDATE objects SET alarm_at_ms = NULL"))
        await super().start()


@contextmanager
def no_input_gate() -> Iterator[None]:
    """Events run although another one has a critical section."""
    with patch("dosql.testing.memory.Turns", OpenTurns):
        yield


@contextmanager
def reply_before_commit() -> Iterator[None]:
    """Replies to calls do not wait until what they show is durable."""

    async def at_once(activation: object, event: object) -> None:
        """The output gate of replies, always open."""

    with patch("dosql.objects.activation.Activation._confirmed", at_once):
        yield


@contextmanager
def frame_before_commit() -> Iterator[None]:
    """Frames to sockets, and calls of other objects, do not wait either."""
    with patch("dosql.objects.output_gate.OutputGate._passes", lambda gate, txid: True):
        yield


@contextmanager
def alarm_lost_on_crash() -> Iterator[None]:
    """Alarms live as long as the process."""
    with patch.object(Simulation, "make_host", ForgetfulHost):
        yield


@contextmanager
def alarm_lost_under_way() -> Iterator[None]:
    """An alarm is deleted when its handler begins, and not when it has ended."""
    begin = AlarmStore.begin

    def begin_and_delete(store: Any, name: str) -> Any:
        row = begin(store, name)
        if row is not None:
            alarm_table.delete(store._access.write(), name)
        return row

    with patch.object(AlarmStore, "begin", begin_and_delete):
        yield


@contextmanager
def message_lost_at_a_reset() -> Iterator[None]:
    """A socket's message counts as delivered as soon as its event has the turn."""

    async def deliver(life: Life, connection: Any, event: Any, started: Callable[[], None]) -> None:
        async def run() -> None:
            for handler in life.sockets.begin(life.object, connection, event):
                outcome: Any = handler()
                if inspect.isawaitable(outcome):
                    await outcome

        task = await life.activation.start(run)
        started()
        with suppress(Exception):
            await asyncio.shield(task)

    with patch.object(Life, "socket_event", deliver):
        yield


VARIANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "no input gate": no_input_gate,
    "reply before commit": reply_before_commit,
    "frame before commit": frame_before_commit,
    "alarm lost on crash": alarm_lost_on_crash,
    "alarm lost under way": alarm_lost_under_way,
    "message lost at a reset": message_lost_at_a_reset,
}
