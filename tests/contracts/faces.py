"""The ways to an object that the contract suite of the stubs runs on.

A `Face` has a namespace per class of tests.support.sample_app. The synchronous client comes in
through threads, so that one suite with ``await`` fits all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from dosql.client import Namespace, Stub, SyncResponse


@dataclass(frozen=True)
class Face:
    """One way in."""

    kind: str
    """``inside``, ``memory``, ``http`` or ``sync``."""
    samples: Any
    """The namespace of the class Sample, as this face has it."""
    callers: Any
    """The same of the class Caller."""

    @property
    def is_remote(self) -> bool:
        """There is a network in between."""
        return self.kind in ("http", "sync")


class ThreadedNamespace:
    """A `Namespace` of the synchronous client with the asynchronous one's ``await``."""

    def __init__(self, namespace: Namespace[Any]) -> None:
        self._namespace = namespace

    def get(self, id: Any) -> ThreadedStub:
        return ThreadedStub(self._namespace.get(id))

    def get_by_name(self, name: str) -> ThreadedStub:
        return ThreadedStub(self._namespace.get_by_name(name))

    async def list(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self._namespace.list, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._namespace, name)


class ThreadedStub:
    """The same for a `Stub`."""

    def __init__(self, stub: Stub[Any]) -> None:
        self._stub = stub
        self.id = stub.id
        self.name = stub.name

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._stub, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call

    async def fetch(self, *args: Any, **kwargs: Any) -> ThreadedResponse:
        return ThreadedResponse(await asyncio.to_thread(self._stub.fetch, *args, **kwargs))


class ThreadedResponse:
    """The same for a `SyncResponse`."""

    def __init__(self, response: SyncResponse) -> None:
        self._response = response

    async def bytes(self) -> bytes:
        return await asyncio.to_thread(self._response.bytes)

    async def text(self) -> str:
        return await asyncio.to_thread(self._response.text)

    async def json(self) -> Any:
        return await asyncio.to_thread(self._response.json)

    async def chunks(self) -> Any:
        for chunk in await asyncio.to_thread(lambda: list(self._response.chunks())):
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)
