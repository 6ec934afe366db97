"""Notebook: the key-value storage of an object, method by method; each can be called by RPC."""

from __future__ import annotations

from typing import Any

from dosql import AlarmInfo
from dosql.patterns import BaseDurableObject

DAY_MS = 24 * 60 * 60 * 1_000
CLEAN_UP = "clean-up"


class Notebook(BaseDurableObject):
    """Values under keys. Those under ``temp:<ms>`` go away after a day."""

    # --- one, and many ------------------------------------------------------------------------

    async def save(self, key: str, value: Any) -> None:
        await self.put(key, value)

    async def load(self, key: str) -> Any:
        return await self.get(key)

    async def remove(self, key: str) -> bool:
        """Whether there was such a key."""
        existed: bool = await self.delete(key)
        return existed

    async def save_all(self, values: dict[str, Any]) -> None:
        """All of them or, if one cannot be stored, none."""
        await self.put(values)

    async def load_all(self, keys: list[str]) -> dict[str, Any]:
        """Those that exist, in the order of their keys."""
        values: dict[str, Any] = await self.get(keys)
        return values

    async def remove_all(self, keys: list[str]) -> int:
        """How many there were."""
        count: int = await self.delete(keys)
        return count

    async def entries(
        self,
        prefix: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[tuple[str, Any]]:
        """In the order of their keys."""
        found = await self.list(prefix=prefix, end=end, limit=limit, reverse=reverse)
        return list(found.items())

    # --- without losing anything --------------------------------------------------------------

    async def save_without_await(self, key: str, value: Any) -> None:
        """A put is done when it returns: whether anybody awaits it makes no difference."""
        self.put(key, value)

    async def increment(self, key: str) -> int:
        """No other event of the object runs in the block, whatever it waits for."""

        async def add_one() -> int:
            value: int = await self.get(key, 0) + 1
            await self.put(key, value)
            return value

        return await self.block_concurrency_while(add_one)

    # --- clean-up -----------------------------------------------------------------------------

    async def save_for_a_day(self, value: Any) -> str:
        """Returns the key."""
        now = self.now_ms()
        while await self.get(key := f"temp:{now}") is not None:
            now += 1
        await self.put(key, value)
        if self.ctx.storage.alarms.get(CLEAN_UP) is None:
            self.ctx.storage.alarms.schedule(CLEAN_UP, after=3_600)
        return key

    async def clean_up(self) -> int:
        """Delete what is older than a day; returns how much it was."""
        old = await self.list(prefix="temp:", end=f"temp:{self.now_ms() - DAY_MS}")
        count: int = await self.delete(list(old))
        return count

    async def alarm(self, info: AlarmInfo) -> None:
        await self.clean_up()
        if await self.list(prefix="temp:", limit=1):
            self.ctx.storage.alarms.schedule(CLEAN_UP, after=3_600)
