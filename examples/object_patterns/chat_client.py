"""ChatClient, and a terminal on top of it: ``python -m examples.object_patterns.chat_client``.

It stays in the room: after a lost connection it waits, longer each time, comes back, and hears what
was said meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

DELAY_S_MIN = 0.5
DELAY_S_MAX = 30.0


class ChatClient:
    """One user in one room. ``show`` gets a line for everything that happens."""

    def __init__(self, url: str, show: Callable[[str], None] = print) -> None:
        self.url = url
        self.show = show
        self.sequence: int | None = None
        """The last message that came."""
        self.connected = asyncio.Event()
        self._ws: ClientConnection | None = None

    async def connect(self, room_id: str, user_id: str) -> None:
        """Stay in the room until cancelled.

        Raises:
            InvalidStatus: the server refuses for good (a status below 500).
        """
        delay = DELAY_S_MIN
        while True:
            try:
                async with connect(self._address(room_id, user_id), proxy=None) as ws:
                    delay = DELAY_S_MIN
                    self._ws = ws
                    self.show("Connected to room")
                    try:
                        async for text in ws:
                            self.handle_message(json.loads(text))
                            self.connected.set()
                    finally:
                        self.connected.clear()
                    self.show(f"Disconnected: {ws.close_code} {ws.close_reason}")
            except InvalidStatus as error:
                if error.response.status_code < 500:
                    raise
            except ConnectionClosed as error:
                self.show(f"Disconnected: {error}")
            except OSError:
                pass  # the server is away
            await asyncio.sleep(delay)
            delay = min(delay * 2, DELAY_S_MAX)

    async def send_message(self, text: str) -> None:
        """Say something, as soon as there is a connection."""
        await self.connected.wait()
        assert self._ws is not None
        await self._ws.send(json.dumps({"type": "chat", "message": text}))

    def handle_message(self, data: dict[str, Any]) -> None:
        """Show what came, and remember how far it went."""
        self.sequence = data.get("sequence", self.sequence)
        match data["type"]:
            case "welcome":
                self.show(f"Joined room: {', '.join(data['roomState']['users'])}")
            case "chat":
                self.show(f"{data['userId']}: {data['message']}")
            case "user_joined":
                self.show(f"{data['userId']} joined the room")
            case "user_left":
                self.show(f"{data['userId']} left the room")
            case "error":
                self.show(f"Error: {data['message']}")

    def _address(self, room_id: str, user_id: str) -> str:
        query = {"userId": user_id}
        if self.sequence is not None:
            query["after"] = str(self.sequence)
        return f"{self.url}/rooms/{quote(room_id, safe='')}?{urlencode(query)}"


async def main() -> None:
    """Says each line of the input; ends at its end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("room")
    parser.add_argument("user")
    parser.add_argument("--url", default="ws://127.0.0.1:8787")
    arguments = parser.parse_args()
    client = ChatClient(arguments.url)
    staying = asyncio.create_task(client.connect(arguments.room, arguments.user))
    while line := await asyncio.to_thread(sys.stdin.readline):
        await client.send_message(line.rstrip("\n"))
    staying.cancel()


if __name__ == "__main__":
    asyncio.run(main())
