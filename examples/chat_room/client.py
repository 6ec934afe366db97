"""Chat in a terminal: ``python -m examples.chat_room.client lobby --name Ada``.

Each line that is typed is said; ends at the end of the input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any
from urllib.parse import quote, urlencode

from websockets.asyncio.client import connect


def shown(event: dict[str, Any]) -> str:
    """An event as a line."""
    match event["type"]:
        case "join" | "leave":
            verb = "joined" if event["type"] == "join" else "left"
            return f"* {event['name']} {verb}, {event['count']} here"
        case "message":
            return f"{event['name']}: {event['text']}"
        case _:
            return f"! {event['message']}"


async def main() -> None:
    """Returns at the end of the input, when everything said has come back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("room")
    parser.add_argument("--name", default="Anonymous")
    parser.add_argument("--url", default="ws://127.0.0.1:8787")
    arguments = parser.parse_args()
    query = urlencode({"name": arguments.name})
    address = f"{arguments.url}/room/{quote(arguments.room, safe='')}?{query}"
    async with connect(address, proxy=None) as ws:
        said = 0
        heard = asyncio.Event()

        async def listen() -> None:
            mine = 0
            async for text in ws:
                event = json.loads(text)
                print(shown(event), flush=True)
                mine += event["type"] == "message" and event["name"] == arguments.name
                if mine >= said:
                    heard.set()

        listening = asyncio.create_task(listen())
        while line := await asyncio.to_thread(sys.stdin.readline):
            said += 1
            heard.clear()
            await ws.send(json.dumps({"type": "message", "text": line.rstrip("\n")}))
        if said:
            await heard.wait()
        listening.cancel()


if __name__ == "__main__":
    asyncio.run(main())
