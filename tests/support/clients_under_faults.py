"""Clients of a host whose disk fails, and a life that they lead there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dosql.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaError,
    UnavailableError,
)
from dosql.host.host import Host
from tests.support.histories import Histories, State
from tests.support.workloads import Client

T = TypeVar("T")


class ClientUnderFaults:
    """A client that takes "nothing was written" at its word, and reads when it is not told.

    Any error but those of a full disk, of an unavailable object, and of an unknown outcome goes
    through: it is a bug.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.refusals = 0
        self.unknown = 0

    async def do(self, action: Callable[[], Awaitable[None]]) -> bool:
        """One action, and whether it was acknowledged; if not, find out what there is now."""
        try:
            await action()
        except OutcomeUnknownError:
            self.unknown += 1
        except (UnavailableError, QuotaError):
            self.refusals += 1
            self.client.history.refuse()
        except ConflictError as error:
            if error.code != "transaction_aborted":  # SQLite rolled an interactive one back
                raise
            self.refusals += 1
            self.client.history.refuse()
        else:
            return True
        await self.read()
        return False

    async def read(self) -> None:
        """Read until there is an answer, which must be one that the history allows."""
        history = self.client.history
        found = await until_answered(self._state)
        allowed = history.allowed(history.now)
        assert found in allowed, f"{self.client.name}: {found} is none of {allowed}"
        history.observe(found)

    async def _state(self) -> State:
        try:
            return await self.client.read()
        except NotFoundError:
            self.client.rows = {}
            return None


async def until_answered(call: Callable[[], Awaitable[T]], seconds: float = 10) -> T:
    """The answer, asked for again while the host says that it recovers or has no room."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await call()
            except (UnavailableError, QuotaError, OutcomeUnknownError):
                await asyncio.sleep(0.005)


async def life_under_faults(host: Host, histories: Histories) -> list[ClientUnderFaults]:
    """Much as `first_life`, with clients that expect faults."""
    clients = [Client(host, histories, name, 1) for name in ("aa", "bb", "cc")]
    a, b, c = (ClientUnderFaults(each) for each in clients)

    async def work(each: ClientUnderFaults, steps: int) -> None:
        client = each.client
        if client.history.state is None:
            await each.do(client.create)
        while client.history.state is not None and not await each.do(client.create_table):
            pass
        for step in range(steps):
            if client.history.state is None:
                return
            await each.do(client.insert)
            if step == 1:
                await each.do(lambda: client.insert_many(3, 1_500))
            if step == 2:
                await each.do(client.delete_half)

    await work(a, 3)
    await asyncio.gather(work(b, 4), work(c, 4))
    if a.client.history.state is not None:
        await a.do(lambda: a.client.insert(20_000))
        await until_answered(a.client.hibernate)
        await a.do(a.client.interactive)
    if b.client.history.state is not None:
        await b.do(b.client.drop)
    if c.client.history.state is not None:
        await c.do(c.client.replace)
    await asyncio.gather(work(b, 3), work(c, 3))
    return [a, b, c]
