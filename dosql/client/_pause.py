"""The two ways of waiting; the generated synchronous client takes the second."""

from __future__ import annotations

import asyncio
import time


async def asleep(seconds: float) -> None:
    """Give way to other tasks for so long."""
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Block this thread for so long."""
    time.sleep(seconds)
