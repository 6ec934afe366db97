"""Clients that insert rows over HTTP and keep at it until each one is acknowledged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


@dataclass
class Progress:
    """What all clients together have seen."""

    acknowledged: int = 0
    replayed: int = 0
    """Acknowledged at a repetition: the first reply was lost, or so was the first write."""
    refused: int = 0
    """Replies that asked to be repeated."""
    lost_replies: int = 0
    _next: asyncio.Event = field(default_factory=asyncio.Event)

    def acknowledge(self, *, replayed: bool) -> None:
        """A row is acknowledged."""
        self.acknowledged += 1
        self.replayed += replayed
        self._next.set()

    async def next_one(self, work: asyncio.Future[Any]) -> None:
        """Return at the next acknowledgement, or when the work has ended."""
        self._next.clear()
        waiting = asyncio.ensure_future(self._next.wait())
        await asyncio.wait((waiting, work), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


class PersistentClient:
    """One connection at a time; a row whose reply is lost is sent again with the same key."""

    def __init__(self, number: int, url: Callable[[], str], token: str, tenant: str) -> None:
        self._number = number
        self._url = url
        self._head = (
            f"POST /run HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n"
            f"X-Tenant-ID: {tenant}\r\nContent-Type: application/json\r\n"
        )
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def insert(self, count: int, progress: Progress) -> None:
        """Insert the rows (number, 0) to (number, count - 1), in order."""
        try:
            for n in range(count):
                await self._insert(n, progress)
        finally:
            self._disconnect()

    async def _insert(self, n: int, progress: Progress) -> None:
        sql = "INSERT INTO ledger(client, n) VALUES (?, ?)"
        body = json.dumps({"sql": sql, "params": [self._number, n]}).encode()
        request = (
            f"{self._head}Idempotency-Key: {self._number}-{n}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        while True:
            try:
                status, headers, reply = await self._send(request)
            except _GONE:
                progress.lost_replies += self._streams is not None
                self._disconnect()
                await asyncio.sleep(0.02)
                continue
            if status == 200:
                break
            assert status == 503, reply
            progress.refused += 1
            await asyncio.sleep(0.02)
        progress.acknowledge(replayed=b"idempotent-replayed" in headers)

    async def _send(self, request: bytes) -> tuple[int, bytes, bytes]:
        if self._streams is None:
            address = urlsplit(self._url())
            self._streams = await asyncio.open_connection(address.hostname, address.port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        return int(head[9:12]), head, await reader.readexactly(length)

    def _disconnect(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
