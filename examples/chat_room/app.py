"""Chat rooms and counters: ``dosql serve --app examples.chat_room.app:app``."""

from __future__ import annotations

from dosql import App, Env, FetchContext, Namespace, Request, Response
from dosql.patterns import origin_allowed
from examples.chat_room.counter import Counter
from examples.chat_room.room import ChatRoom


class Bindings(Env):
    CHAT_ROOM: Namespace[ChatRoom]
    COUNTER: Namespace[Counter]


app = App(env=Bindings)
app.durable_object(ChatRoom)
app.durable_object(Counter)


@app.fetch
async def fetch(request: Request, env: Bindings, ctx: FetchContext) -> Response:
    """``/room/{roomId}``: the object behind it knows the socket as ``/websocket``."""
    match request.path.split("/")[1:]:
        case ["room", room_id] if 0 < len(room_id) <= 128:
            if not origin_allowed(request):
                return Response("Origin not allowed", status=403)
            room = env.CHAT_ROOM.get(env.CHAT_ROOM.id_from_name(room_id))
            return await room.fetch(request.replace(path="/websocket"))
        case _:
            return Response("Not Found", status=404)
