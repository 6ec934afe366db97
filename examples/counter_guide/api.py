"""The routes: middleware puts variables on the request's context, handlers use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dosql import Response
from dosql.patterns import origin_allowed
from examples.counter_guide.env import Context

Handler = Callable[[Context], Awaitable[Response]]
Middleware = Callable[[Context, Handler], Awaitable[Response]]

NO_STORE = {"Cache-Control": "no-store"}


class Api:
    """Routes by method and path; middleware by the beginning of the path, outermost first."""

    def __init__(self) -> None:
        self._middleware: list[tuple[str, Middleware]] = []
        self._routes: dict[tuple[str, str], Handler] = {}

    def use(self, prefix: str) -> Callable[[Middleware], Middleware]:
        """Let the function run around every handler whose path begins with ``prefix``."""

        def add(middleware: Middleware) -> Middleware:
            self._middleware.append((prefix, middleware))
            return middleware

        return add

    def route(self, path: str, *methods: str) -> Callable[[Handler], Handler]:
        """Let the function answer these methods of ``path``."""

        def add(handler: Handler) -> Handler:
            self._routes.update({(method, path): handler for method in methods})
            return handler

        return add

    async def __call__(self, context: Context) -> Response:
        """Answer one request."""
        handler = self._find(context.request.method, context.request.path)
        for prefix, middleware in reversed(self._middleware):
            if context.request.path.startswith(prefix):
                handler = _around(middleware, handler)
        return await handler(context)

    def _find(self, method: str, path: str) -> Handler:
        handler = self._routes.get((method, path))
        if handler is not None:
            return handler
        allowed = [known for known, where in self._routes if where == path]
        return _method_not_allowed(allowed) if allowed else _not_found


def _around(middleware: Middleware, handler: Handler) -> Handler:
    return lambda context: middleware(context, handler)


async def _not_found(context: Context) -> Response:
    return Response("Not found", status=404)


def _method_not_allowed(allowed: list[str]) -> Handler:
    async def answer(context: Context) -> Response:
        headers = {"Allow": ", ".join(sorted(allowed))}
        return Response("Method not allowed", status=405, headers=headers)

    return answer


api = Api()


@api.use("/")
async def with_request_id(context: Context, proceed: Handler) -> Response:
    """The id under which the server logs the request; its reply carries it as X-Request-ID."""
    context.request_id = context.request.headers["x-request-id"]
    return await proceed(context)


@api.use("/api/counter/")
async def with_counter(context: Context, proceed: Handler) -> Response:
    namespace = context.env.COUNTER
    context.counter_stub = namespace.get(namespace.id_from_name("default"))
    return await proceed(context)


@api.use("/api/counter2/")
async def with_counter2(context: Context, proceed: Handler) -> Response:
    namespace = context.env.COUNTER2
    context.counter2_stub = namespace.get(namespace.id_from_name("default"))
    return await proceed(context)


@api.route("/api/counter/ws", "GET")
async def connect(context: Context) -> Response:
    """The object knows this path as ``/ws``."""
    assert context.counter_stub is not None
    if not origin_allowed(context.request):
        return Response("Origin not allowed", status=403)
    return await context.counter_stub.fetch(context.request.replace(path="/ws"))


@api.route("/api/counter2/increment", "GET", "POST")
async def increment(context: Context) -> Response:
    """POST is right: GET is there because the guide has it, and must not be cached."""
    assert context.counter2_stub is not None
    value = await context.counter2_stub.increment()
    return Response.from_json({"value": value}, headers=NO_STORE)


@api.route("/api/counter2/value", "GET")
async def get_value(context: Context) -> Response:
    assert context.counter2_stub is not None
    value = await context.counter2_stub.get_value()
    return Response.from_json({"value": value}, headers=NO_STORE)
