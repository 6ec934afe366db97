"""ProgressStream: a reply that begins while the work goes on, and says how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from dosql.clock import Clock
from dosql.replica.reading import OnProgress
from dosql.wire.body import Body
from dosql.wire.restores import BytesProgress
from server.asgi import NDJSON, Receive, Scope, Send
from server.context import RequestContext, context_of
from server.error_responses import error_reply

_PACE_S = 0.25
"""Between two lines, but for the first and the last ones."""
_HEADERS = [
    (b"content-type", NDJSON),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep lines back
]
_encode = msgspec.json.Encoder().encode


class ProgressStream:
    """Lines of JSON: ``{"progress": {...}}``, and at the end ``{"result": {...}}`` or an error.

    An error before the first progress is an ordinary reply. A client that reads slowly misses
    lines; neither it nor one that goes away has any effect on the work, which is done once.
    """

    def __init__(self, work: Callable[[OnProgress], Awaitable[Body]], clock: Clock) -> None:
        """``work`` calls what it is given from any thread, and only while it runs."""
        self._work = work
        self._monotonic = clock.monotonic
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._first: tuple[int, int] | None = None
        self._newest: tuple[int, int] | None = None
        self._told_at = 0.0

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Raises whatever the work raised before its first progress; nothing was sent then."""
        work = asyncio.ensure_future(self._work(self._tell))
        work.add_done_callback(lambda _: self._news.set())
        try:
            await self._news.wait()
            if self._first is None:
                work.result()
            await self._send(work, context_of(scope), send)
        except asyncio.CancelledError:
            work.cancel()
            raise
        finally:
            await asyncio.wait([work])  # also without a client: the work is not left alone
            if not work.cancelled():
                work.exception()  # it has been told, or there is nobody to tell

    def _tell(self, done: int, total: int) -> None:
        """Paced here, where it costs a comparison: only the newest is kept."""
        self._newest = done, total
        is_first = self._first is None
        if is_first:
            self._first = self._newest
        now = self._monotonic()
        if is_first or done >= total or now - self._told_at >= _PACE_S:
            self._told_at = now
            self._loop.call_soon_threadsafe(self._news.set)

    async def _send(self, work: asyncio.Future[Body], context: RequestContext, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        sent = self._first  # the newest may be further already
        if sent is not None:
            await send(_line({"progress": BytesProgress(*sent)}))
        is_over = False
        while not is_over:
            await self._news.wait()
            self._news.clear()
            is_over = work.done()  # asked first: what is told behind it comes to nothing
            if self._newest is not None and self._newest != sent:
                sent = self._newest
                await send(_line({"progress": BytesProgress(*sent)}))
        await send({**_line(_outcome(work, context)), "more_body": False})


def _outcome(work: asyncio.Future[Body], context: RequestContext) -> dict[str, Any]:
    """The last line. The log and the metrics count an error as they count a reply that is one."""
    failure = work.exception()
    if failure is None:
        return {"result": work.result()}
    status, body, _ = error_reply(failure, context)
    context.status = status
    return {"status": status, **msgspec.json.decode(body)}


def _line(body: dict[str, Any]) -> dict[str, Any]:
    return {"type": "http.response.body", "body": _encode(body) + b"\n", "more_body": True}
