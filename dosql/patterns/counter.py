"""Counter: one number, counted by whoever may call the object.

Over HTTP (``POST /increment``, ``POST /decrement``, ``POST /reset``, ``GET /value``, each answered
``{"value": n}``) and as RPC. Reading, adding and writing happen in one step of the object, so no
increment is ever lost, however many callers there are.
"""

from __future__ import annotations

from dosql import InvalidRequestError, Request, Response
from dosql.patterns.base import BaseDurableObject

_KEY = "value"
_WRITES = frozenset({"/increment", "/decrement", "/reset"})


class Counter(BaseDurableObject):
    """Integers of any size. A counter that was never written is 0 and takes no disk space."""

    def increment(self, by: int = 1) -> int:
        """Add, and return the new value."""
        value = self.get_value() + _whole(by)
        self.ctx.storage.kv.put(_KEY, value)
        return value

    def decrement(self, by: int = 1) -> int:
        """Subtract, and return the new value."""
        return self.increment(-_whole(by))

    def reset(self) -> int:
        """Back to 0."""
        self.ctx.storage.kv.delete(_KEY)
        return 0

    def get_value(self) -> int:
        """The value now."""
        value: int = self.ctx.storage.kv.get(_KEY, 0)
        return value

    async def handle_request(self, request: Request) -> Response:
        if request.path in {"/", "/value"}:
            if request.method not in {"GET", "HEAD"}:
                return self.method_not_allowed("GET", "HEAD")
            return self.json({"value": self.get_value()})
        if request.path not in _WRITES:
            return self.error("Not found", 404)
        if request.method != "POST":
            return self.method_not_allowed("POST")
        if request.path == "/reset":
            return self.json({"value": self.reset()})
        by = await _step_of(request)
        value = self.increment(by if request.path == "/increment" else -by)
        return self.json({"value": value})


async def _step_of(request: Request) -> int:
    """``by`` in the body; without a body, 1."""
    if not await request.bytes():
        return 1
    body = await request.json()
    if not isinstance(body, dict):
        raise InvalidRequestError('The body must be an object, for example {"by": 2}.')
    return _whole(body.get("by", 1))


def _whole(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidRequestError("by must be a whole number.")
    return number
