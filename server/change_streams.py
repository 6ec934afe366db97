"""Streams of changes: a subscription on its way to a client, as events or as messages.

The client draws: the next page is read when the network has taken the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec

from dosql.errors import DosqlError, InvalidRequestError
from dosql.host.changes import ChangePage, Changes, Subscription
from dosql.wire.changes import AcknowledgeChanges
from server.asgi import ClientGone, Receive, Send
from server.change_bodies import bodies, encode, event_of
from server.change_requests import ChangeRequest
from server.error_responses import invalid_body
from server.sql_work import writes_refused

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
]
_RESTART = 1012
"""Close code: connect again."""
_REFUSED = 1008
_acknowledgement = msgspec.json.Decoder(dict[str, int])


async def send_events(
    subscription: Subscription,
    request: ChangeRequest,
    receive: Receive,
    send: Send,
    closing: asyncio.Event,
) -> None:
    """Server-sent events until the client goes away, the server closes, or nothing can be read
    any more: the client is to connect again with the id of the last event.

    Raises:
        DosqlError: nothing could be read from the start; nothing was sent then.
        ClientGone: the client went away.
    """
    page = await subscription.next()
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})

    async def pump() -> None:
        nonlocal page
        while True:
            body = _events(page, request, subscription)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            if not request.follow and (page is None or not page.more):
                return
            page = await subscription.next()

    await _until_over(pump(), _disconnected(receive, "http.disconnect"), closing)
    await send({"type": "http.response.body", "body": b""})


def _events(page: ChangePage | None, request: ChangeRequest, subscription: Subscription) -> bytes:
    """With an id behind them, of what was left out too: a client that connects again goes on
    there. JSON has no line breaks."""
    events = [] if page is None else bodies(page, request)
    parts = [
        b"id: %d\nevent: %b\ndata: %b\n\n" % (each["seq"], event_of(each).encode(), encode(each))
        for each in events
    ]
    if not events or events[-1]["seq"] != subscription.cursor:
        parts.append(b": alive\nid: %d\n\n" % (subscription.cursor or 0))
    return b"".join(parts)


async def send_messages(
    subscription: Subscription,
    request: ChangeRequest,
    receive: Receive,
    send: Send,
    closing: asyncio.Event,
    *,
    changes: Changes,
    read_only: bool,
) -> None:
    """The same as text messages of a WebSocket; ``{"ack": seq}`` moves the slot.

    Raises: as `send_events`.
    """
    page = await subscription.next()
    await send({"type": "websocket.accept"})
    told: int | None = None

    async def pump() -> None:
        nonlocal page, told
        while True:
            for each in [] if page is None else bodies(page, request):
                await send({"type": "websocket.send", "text": encode(each).decode()})
                told = each["seq"]
            if told != subscription.cursor:  # the client's place in what it did not ask for
                told = subscription.cursor
                text = encode({"seq": told, "type": "progress"}).decode()
                await send({"type": "websocket.send", "text": text})
            if not request.follow and (page is None or not page.more):
                return
            page = await subscription.next()

    async def listen() -> None:
        async for text in _texts(receive):
            if read_only:
                raise writes_refused()
            if request.slot is None:
                raise InvalidRequestError("There is no slot to acknowledge.")
            seq = _decode_acknowledgement(text).seq
            await changes.acknowledge(subscription.tenant, request.slot, seq)

    code, reason = 1000, ""
    try:
        await _until_over(pump(), listen(), closing)
        if closing.is_set():
            code, reason = _RESTART, "The server restarts."
    except DosqlError as error:
        code, reason = (_RESTART if error.retryable else _REFUSED), error.code
    await send({"type": "websocket.close", "code": code, "reason": reason})


def _decode_acknowledgement(text: str | bytes) -> AcknowledgeChanges:
    try:
        given = _acknowledgement.decode(text)
        return AcknowledgeChanges(seq=given["ack"])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise invalid_body(exc) from None
    except KeyError:
        raise InvalidRequestError('A message is {"ack": seq}.') from None


async def _texts(receive: Receive) -> AsyncIterator[str | bytes]:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            raise ClientGone
        if message["type"] == "websocket.receive":
            yield message.get("text") or message.get("bytes") or b""


async def _disconnected(receive: Receive, kind: str) -> None:
    while (await receive())["type"] != kind:
        pass
    raise ClientGone


async def _until_over(
    pump: Coroutine[Any, Any, None], listen: Coroutine[Any, Any, None], closing: asyncio.Event
) -> None:
    """Until one of both ends or the server closes; raises what ended it."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[Any]] = [
        loop.create_task(pump),
        loop.create_task(listen),
        loop.create_task(closing.wait()),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks[:2]:
        if not task.cancelled():
            task.result()
