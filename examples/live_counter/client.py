"""Watch a counter: ``python -m examples.live_counter.client my-counter``.

Stays connected: after a lost connection it waits, longer each time, connects again, and is told
what happened meanwhile, because it says which operation it saw last.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PING_S = 30.0
DELAY_S_MIN = 0.5
DELAY_S_MAX = 30.0


async def updates(url: str, name: str, after: int = 0) -> AsyncIterator[dict[str, Any]]:
    """Every event behind ``after``, in order, none twice, over as many connections as it takes.

    Raises:
        InvalidStatus: the server refuses the connection for good (a status below 500).
    """
    delay = DELAY_S_MIN
    while True:
        try:
            address = f"{url}/ws/counter/{quote(name, safe='')}?after={after}"
            async with connect(address, proxy=None) as ws:
                delay = DELAY_S_MIN
                pinging = asyncio.create_task(ping(ws))
                try:
                    async for text in ws:
                        message = json.loads(text)
                        if "metadata" not in message:
                            continue  # a pong
                        count = message["metadata"]["operationCount"]
                        if count > after:
                            after = count
                            yield message
                finally:
                    pinging.cancel()
        except InvalidStatus as error:
            if error.response.status_code < 500:
                raise
        except OSError:
            pass  # the server is away
        await asyncio.sleep(delay)
        delay = min(delay * 2, DELAY_S_MAX)


async def ping(ws: ClientConnection) -> None:
    """Keep the connection in use, for proxies that drop idle ones."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(PING_S)
            await ws.send('{"type":"ping"}')


async def main() -> None:
    """Prints a line for each event; ends after ``--updates`` of them, or never."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--url", default="ws://127.0.0.1:8787")
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--updates", type=int)
    arguments = parser.parse_args()
    seen = 0
    async for event in updates(arguments.url, arguments.name, arguments.after):
        if event["type"] == "snapshot":
            print(f"Counter: {event['metadata']['value']}")
        else:
            print(f"Counter {event['type']}: {event['previousValue']} → {event['value']}")
        seen += 1
        if seen == arguments.updates:
            return


if __name__ == "__main__":
    asyncio.run(main())
