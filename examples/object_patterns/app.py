"""One object of each kind: ``dosql serve --app examples.object_patterns.app:app``."""

from __future__ import annotations

from typing import Any

from dosql import App, Env, FetchContext, Namespace, Request, Response, Stub
from dosql.patterns import Counter, RateLimiter, WebSocketRoom, origin_allowed
from examples.object_patterns.account import Account
from examples.object_patterns.chat import ChatRoom
from examples.object_patterns.game import GameServer
from examples.object_patterns.my_object import MyDurableObject
from examples.object_patterns.notebook import Notebook


class Bindings(Env):
    MY_DURABLE_OBJECT: Namespace[MyDurableObject]
    ROOMS: Namespace[WebSocketRoom]
    CHAT_ROOM: Namespace[ChatRoom]
    COUNTERS: Namespace[Counter]
    RATE_LIMITER: Namespace[RateLimiter]
    GAME_SERVERS: Namespace[GameServer]
    ACCOUNT: Namespace[Account]
    NOTEBOOK: Namespace[Notebook]


app = App(env=Bindings)
app.durable_object(MyDurableObject)
app.durable_object(name="rooms")(WebSocketRoom)
app.durable_object(ChatRoom)
app.durable_object(name="counters")(Counter)
app.durable_object(RateLimiter)
app.durable_object(name="game-servers")(GameServer)
app.durable_object(Account)
app.durable_object(Notebook)


@app.fetch
async def fetch(request: Request, env: Bindings, ctx: FetchContext) -> Response:
    """Find the object, and hand the request on under the path that the object knows."""
    found = route(request, env)
    if found is None:
        return Response.from_json({"error": "Not found", "code": "not_found"}, status=404)
    if request.is_websocket_upgrade and not origin_allowed(request):
        return Response("Origin not allowed", status=403)
    stub, path = found
    return await stub.fetch(request.replace(path=path))


def route(request: Request, env: Bindings) -> tuple[Stub[Any], str] | None:
    """Which object is meant, and by what path it knows the request; None: no object."""
    match request.path.removeprefix("/").split("/"):
        case ["increment" | "value"]:
            singleton = env.MY_DURABLE_OBJECT.id_from_name("singleton")
            return env.MY_DURABLE_OBJECT.get(singleton), request.path
        case ["room"]:
            return env.ROOMS.get_by_name(request.query.get("room", "lobby")), "/"
        case ["rooms", room_id] if room_id:
            return env.CHAT_ROOM.get_by_name(room_id), "/"
        case ["counters", name, action] if name:
            return env.COUNTERS.get_by_name(name), f"/{action}"
        case ["check", *_]:
            return env.RATE_LIMITER.get_by_name("api-limiter"), request.path
        case ["game", game_id, *rest] if game_id:
            return env.GAME_SERVERS.get_by_name(game_id), "/" + "/".join(rest)
        case ["accounts", name, *rest] if name:
            return env.ACCOUNT.get_by_name(name), "/" + "/".join(rest)
    return None
