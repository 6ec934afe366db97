"""What the program's code is given: the bindings on ``env``, and the variables of one request."""

from __future__ import annotations

from dataclasses import dataclass

from dosql import Env, Namespace, Request, Stub
from examples.counter_guide.objects import Counter, Counter2


class Bindings(Env):
    """Checked when the server starts: each class must be registered (see ``app.py``)."""

    COUNTER: Namespace[Counter]
    COUNTER2: Namespace[Counter2]


@dataclass
class Context:
    """One request on its way through the middleware."""

    request: Request
    env: Bindings
    request_id: str = ""
    counter_stub: Stub[Counter] | None = None
    counter2_stub: Stub[Counter2] | None = None
