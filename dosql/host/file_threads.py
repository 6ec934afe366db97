"""FileThreads: the threads on which a host reads and writes files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from dosql.log.disk import disk_error

T = TypeVar("T")
P = ParamSpec("P")


class FileThreads:
    """A few threads that are shared by all objects."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="dosql-files")

    async def run(self, work: Callable[[], T]) -> T:
        """Run file work off the loop; it is never abandoned half-way.

        Raises:
            UnavailableError, QuotaError: for an OSError.
        """
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(future)
        except OSError as error:
            raise disk_error(error) from error
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def submit(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run work that nobody waits for, and whose failure does no harm."""
        self._threads.submit(work, *args, **kwargs)

    def close(self) -> None:
        """Return when all work has ended."""
        self._threads.shutdown()
