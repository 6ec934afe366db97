"""Reloader: for development, runs a new version of the app when one of its files has changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from dosql.errors import DosqlError
from dosql.objects.app import App
from server.app_loader import AppLoader

_LOOK_S = 0.3
"""Between two looks at the files: a few dozen calls of stat, which also see what no notification
tells of, such as changes on a network drive or in a container's mount."""


class Reloader:
    """``replace`` puts the new version in place of the old one."""

    def __init__(self, loader: AppLoader, replace: Callable[[App], Awaitable[None]]) -> None:
        self._loader = loader
        self._replace = replace
        self._versions = self._look()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.reload_if_changed()

    async def reload_if_changed(self) -> None:
        """Look once. A version that fails is told of on stderr, and the old one goes on."""
        versions = self._look()
        if versions == self._versions:
            return
        try:
            await self._replace(self._loader.reload())
        except DosqlError as error:
            _say(f"not reloaded: {error.message}")
        except Exception as exc:
            _say(f"not reloaded: {type(exc).__name__}: {exc}")
        else:
            _say("reloaded the app")
        # A file that changed while it was read is read again at the next look.
        self._versions = {path: versions.get(path, now) for path, now in self._look().items()}

    def _look(self) -> dict[Path, tuple[int, int]]:
        """The version of each file; a file that is gone has none."""
        versions: dict[Path, tuple[int, int]] = {}
        for path in self._loader.files:
            try:
                status = path.stat()
            except OSError:
                continue
            versions[path] = (status.st_mtime_ns, status.st_size)
        return versions


def _say(what: str) -> None:
    print(f"dosql: {what}", file=sys.stderr, flush=True)
