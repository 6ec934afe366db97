"""Live counters: ``dosql serve --app examples.live_counter.app:app``.

``GET /ws/counter/{name}`` subscribes, ``POST /rpc/counter.{procedure}`` operates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from dosql import App, Env, FetchContext, InvalidRequestError, Namespace, Request, Response, Stub
from dosql.patterns import origin_allowed
from examples.live_counter.counter import Counter
from examples.live_counter.events import check_name


class Bindings(Env):
    COUNTER: Namespace[Counter]


class Input(msgspec.Struct):
    """The body of a procedure; which fields it needs is the procedure's to say."""

    name: str
    amount: int = 1
    value: int | None = None
    limit: int = 50
    before: int | None = None


Procedure = Callable[[Stub[Counter], Input, str | None], Awaitable[Any]]

app = App(env=Bindings)
app.durable_object(Counter)


@app.fetch
async def fetch(request: Request, env: Bindings, ctx: FetchContext) -> Response:
    first, _, rest = request.path.removeprefix("/").partition("/")
    if first == "ws" and rest.startswith("counter/"):
        return await subscribe(request, env, rest.removeprefix("counter/"))
    procedure = PROCEDURES.get(rest) if first == "rpc" else None
    if procedure is None:
        return Response("Not Found", status=404)
    if request.method != "POST":
        return Response("Method Not Allowed", status=405, headers={"Allow": "POST"})
    given = await request.json(Input)
    counter = env.COUNTER.get_by_name(check_name(given.name))
    result = await procedure(counter, given, request.headers.get("idempotency-key"))
    return Response.from_json(result)


async def subscribe(request: Request, env: Bindings, name: str) -> Response:
    """Hand the socket to the counter of that name."""
    if not request.is_websocket_upgrade:
        headers = {"Upgrade": "websocket"}
        return Response("Expected Upgrade: websocket", status=426, headers=headers)
    if not origin_allowed(request):
        return Response("Origin not allowed", status=403)
    counter_id = env.COUNTER.id_from_name(check_name(name))
    return await env.COUNTER.get(counter_id).fetch(request)


async def increment(counter: Stub[Counter], given: Input, key: str | None) -> Any:
    return await counter.increment(given.amount, key=key)


async def decrement(counter: Stub[Counter], given: Input, key: str | None) -> Any:
    return await counter.decrement(given.amount, key=key)


async def set_value(counter: Stub[Counter], given: Input, key: str | None) -> Any:
    if given.value is None:
        raise InvalidRequestError("value is missing.")
    return await counter.set_value(given.value, key=key)


async def reset(counter: Stub[Counter], given: Input, key: str | None) -> Any:
    return await counter.reset(key=key)


async def get_value(counter: Stub[Counter], given: Input, key: str | None) -> Any:
    return {"value": await counter.get_value()}


async def get_metadata(counter: Stub[Counter], given: Input, key: str | None) -> Any:
    return await counter.get_metadata()


async def get_history(counter: Stub[Counter], given: Input, key: str | None) -> Any:
    return {"operations": await counter.get_history(given.limit, given.before)}


PROCEDURES: dict[str, Procedure] = {
    "counter.increment": increment,
    "counter.decrement": decrement,
    "counter.setValue": set_value,
    "counter.reset": reset,
    "counter.getValue": get_value,
    "counter.getMetadata": get_metadata,
    "counter.getHistory": get_history,
}
