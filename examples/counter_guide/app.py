"""The entry point: ``dosql serve --app examples.counter_guide.app:app``.

Two things belong together, and the server checks both when it starts: what ``Bindings`` names, and
the classes that are registered here.
"""

from __future__ import annotations

from dosql import App, FetchContext, Request, Response
from examples.counter_guide.api import api
from examples.counter_guide.env import Bindings, Context
from examples.counter_guide.objects import Counter, Counter2

app = App(env=Bindings)
app.durable_object(Counter)
app.durable_object(Counter2)


@app.fetch
async def fetch(request: Request, env: Bindings, ctx: FetchContext) -> Response:
    """Everything that the server has no route of its own for."""
    return await api(Context(request, env))
