"""What an idle WebSocket and a broadcast cost with each protocol that uvicorn may speak.

``python -m tests.scale.socket_protocols [--sockets 5000]`` prints the table of
docs/decisions/0005-websocket-protocol.md. The applications do nothing else: what differs is the
protocol alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psutil
import uvicorn
import uvloop

from dosql.clock import SystemClock
from dosql.objects.connections import Connection, MessageEvent, SocketEvent
from dosql.objects.sockets import Sockets
from dosql.objects.websocket import WebSocketPair
from server.socket_protocol import TAKE_OVER, SocketServer, upgrade_protocol
from server.socket_sweep import SocketSweep
from tests.support.raw_sockets import RawSocket

_ROUNDS = 20
_PADDING = "x" * 180


class PlainApp:
    """Accept, then wait for messages: how an ASGI application holds a socket."""

    def __init__(self) -> None:
        self.sends: set[Any] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.sends.add(send)
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                self.sends.discard(send)
                return
            text = _stamped()
            for each in list(self.sends):
                await each({"type": "websocket.send", "text": text})


class OwnApp:
    """The same with sockets that leave ASGI after the handshake."""

    def __init__(self) -> None:
        self.sockets = Sockets(self.deliver, SystemClock())
        self.sockets.activate(lambda action: action())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        client, server = WebSocketPair()
        self.sockets.accept(server)
        scope["extensions"][TAKE_OVER](client, [])

    async def deliver(
        self, connection: Connection, event: SocketEvent, started: Callable[[], None]
    ) -> None:
        self.sockets.begin(self, connection, event)
        started()
        if isinstance(event, MessageEvent):
            text = _stamped()
            for socket in self.sockets.get():
                socket.send(text)


def _stamped() -> str:
    return f"{time.monotonic()} {_PADDING}"


def _serve(kind: str, pipe: Pipe) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        protocol: Any = kind
        app: Any = PlainApp()
        if kind == "own":
            sweep = SocketSweep()
            sweep.start()
            protocol = upgrade_protocol(SocketServer(message_bytes_max=1 << 20, sweep=sweep))
            app = OwnApp()
        config = uvicorn.Config(
            app,
            port=0,
            lifespan="off",
            ws=protocol,
            log_level="error",
            ws_per_message_deflate=False,
        )
        server = uvicorn.Server(config)
        task = loop.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        while await loop.run_in_executor(None, pipe.recv) == "rss":
            gc.collect()
            pipe.send((_rss_kb(), time.process_time()))
        server.should_exit = server.force_exit = True
        await task

    uvloop.run(run())


def _rss_kb() -> int:
    return psutil.Process().memory_info().rss // 1024


async def _measure(kind: str, count: int) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(kind, there))
    process.start()
    port = await asyncio.to_thread(here.recv)
    delays: list[float] = []

    def on_message(socket: RawSocket, opcode: int, payload: bytes) -> None:
        if opcode == 1:
            delays.append(time.monotonic() - float(payload.split()[0]))

    async def ask() -> tuple[int, float]:
        here.send("rss")
        answer: tuple[int, float] = await asyncio.to_thread(here.recv)
        return answer

    first = await RawSocket.connect("127.0.0.1", port, "/", on_message=on_message)
    first.send("warm up")
    await asyncio.sleep(0.5)
    before, _ = await ask()
    sockets = [first]
    while len(sockets) < count:
        batch = (
            RawSocket.connect("127.0.0.1", port, "/", on_message=on_message) for _ in range(100)
        )
        sockets += await asyncio.gather(*batch)
    after, cpu = await ask()
    delays.clear()
    for number in range(1, _ROUNDS + 1):
        first.send("go")
        while len(delays) < number * len(sockets):  # noqa: ASYNC110 - no event per message
            await asyncio.sleep(0.005)
    _, cpu_after = await ask()
    delays.sort()
    print(
        f"{kind:18} {(after - before) / len(sockets):6.1f} KB/socket   broadcast to "
        f"{len(sockets)}: p50 {statistics.median(delays) * 1e3:6.1f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)] * 1e3:6.1f} ms, "
        f"{(cpu_after - cpu) / len(delays) * 1e6:5.1f} µs CPU/message",
        flush=True,
    )
    here.send("end")
    process.join()


def main() -> None:
    """Measure each protocol in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=5_000)
    parser.add_argument("kinds", nargs="*", default=["websockets-sansio", "wsproto", "own"])
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for kind in options.kinds:
        uvloop.run(_measure(kind, options.sockets))


if __name__ == "__main__":
    sys.exit(main())
