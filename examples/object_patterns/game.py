"""GameServer: a game of up to four players."""

from __future__ import annotations

from typing import Any

from dosql import Request, Response
from dosql.patterns import BaseDurableObject

PLAYERS_MAX = 4


class GameServer(BaseDurableObject):
    """``POST /join`` and ``POST /move`` with ``?playerId=``, ``GET /state``.

    State and players are one value each, written together: there is never one without the other.
    """

    async def handle_request(self, request: Request) -> Response:
        player_id = request.query.get("playerId", "")
        match request.path:
            case "/join" | "/move" if request.method != "POST":
                return self.method_not_allowed("POST")
            case "/join" | "/move" if not 1 <= len(player_id) <= 64:
                return self.error("playerId is required", 400)
            case "/join":
                return await self.join(player_id)
            case "/move":
                return await self.move(player_id, await request.json())
            case "/state":
                return self.json(await self.get("gameState", {"status": "waiting"}))
            case _:
                return self.error("Not found", 404)

    async def join(self, player_id: str) -> Response:
        """Joining again changes nothing."""
        players: dict[str, Any] = await self.get("players", {})
        if player_id not in players and len(players) >= PLAYERS_MAX:
            return self.error("Game is full", 400, code="game_full")
        players.setdefault(player_id, {"id": player_id, "score": 0})
        state = await self.get("gameState", {"status": "waiting"})
        await self.put({"players": players, "gameState": state})
        return self.success({"joined": True, "players": len(players)})

    async def move(self, player_id: str, move: Any) -> Response:
        """The first move begins the game."""
        players: dict[str, Any] = await self.get("players", {})
        if player_id not in players:
            return self.error("Join the game first", 409)
        state = {"status": "playing", "lastMove": {"playerId": player_id, "move": move}}
        await self.put({"players": players, "gameState": state})
        return self.success({"gameState": state})
