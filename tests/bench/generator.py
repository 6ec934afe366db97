"""Load generator: keeps a number of connections busy and times every answer.

A program of its own, so that it shares no interpreter with what it measures. It reads a plan as
JSON on stdin and writes one JSON object to stdout. Every connection sends the next request when
the answer to the last one is complete (a closed loop); requests are sent as they were rendered,
and of an answer only its status and its length are looked at.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import sys
import time
from itertools import cycle
from typing import cast

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Load:
    """What all connections share."""

    def __init__(self, requests: list[bytes]) -> None:
        self.next_request = cycle(requests).__next__
        self.times_s: list[float] = []
        self.errors = 0
        self.stopped = False
        self.lost = asyncio.get_running_loop().create_future()
        """Fails when the server closes a connection."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._head = b""
        self._missing = 0
        """Bytes of the body that are still to come."""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        made = transport.get_extra_info("socket")
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        load = self._load
        if not load.stopped and not load.lost.done():
            load.lost.set_exception(exc or ConnectionError("the server closed a connection"))

    def send(self) -> None:
        """Send the next request."""
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.next_request())

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            head, end, rest = (self._head + data).partition(_HEAD_END)
            if not end:
                self._head = head
                return
            self._head = b""
            self._missing = _content_length(head) - len(rest)
            if head[9:10] != b"2":
                self._load.errors += 1
        if not self._missing:
            load = self._load
            if not load.stopped:
                load.times_s.append(time.perf_counter() - self._sent_at)
                self.send()


def _content_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.index(_LENGTH) + len(_LENGTH)
    return int(lower[at:].partition(b"\r\n")[0])


def percentile(ordered: list[float], share: float) -> float:
    """The value that ``share`` of the sorted values do not exceed; 0 if there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def _run(
    host: str, port: int, connections: int, seconds: float, requests: list[bytes]
) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    load = Load(requests)
    opened = [
        await loop.create_connection(lambda: Connection(load), host, port)
        for _ in range(connections)
    ]
    started = time.perf_counter()
    for _, connection in opened:
        connection.send()
    await asyncio.wait([load.lost], timeout=seconds)
    while not (load.times_s or load.lost.done()):  # one answer takes longer than that
        await asyncio.wait([load.lost], timeout=0.01)
    took_s = time.perf_counter() - started
    load.stopped = True
    for transport, _ in opened:
        transport.abort()
    if load.lost.done():
        load.lost.result()
    times_s = sorted(load.times_s)
    return {
        "requests": len(times_s),
        "seconds": took_s,
        "p50Ms": percentile(times_s, 0.5) * 1000,
        "p99Ms": percentile(times_s, 0.99) * 1000,
        "errors": load.errors,
    }


def main() -> None:
    """Read the plan, run it, print the result."""
    import uvloop

    plan = json.load(sys.stdin)
    requests = [base64.b64decode(each) for each in plan.pop("requests")]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_run(**plan, requests=requests))))


if __name__ == "__main__":
    main()
