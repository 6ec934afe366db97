"""Life: one object's code in memory, and how events reach its handlers.

It begins with the constructor and ends when the object leaves memory or is reset. Its sockets, its
database and its alarms outlive it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from dosql.bookmarks import Bookmark
from dosql.clock import Clock
from dosql.errors import DosqlError, InvalidRequestError, NotFoundError, ObjectResetError
from dosql.fetch import Request, Response
from dosql.ids import ObjectId
from dosql.limits import PRE_SHUTDOWN_S_MAX
from dosql.objects.activation import Activation
from dosql.objects.connections import Connection, SocketEvent
from dosql.objects.durable_object import DurableObject
from dosql.objects.idempotency import Idempotency, store_outcome, stored_outcome
from dosql.objects.instance import InstanceClosed
from dosql.objects.rpc import RpcMethod, object_error
from dosql.objects.sockets import Sockets
from dosql.objects.state import ObjectState

_log = logging.getLogger("dosql.objects")


class Life:
    """Made by the host at a wake; `begin` runs the constructor."""

    def __init__(
        self,
        id: ObjectId,
        cls: type[DurableObject],
        env: Any,
        *,
        activation: Activation,
        ctx: ObjectState,
        sockets: Sockets,
        clock: Clock,
    ) -> None:
        self.id = id
        self.cls = cls
        self.activation = activation
        self.sockets = sockets
        self._ctx = ctx
        self._env = env
        self._clock = clock
        self._object: DurableObject | None = None

    @property
    def object(self) -> DurableObject:
        """The user's own."""
        assert self._object is not None, "the constructor is the first event"
        return self._object

    async def begin(self) -> None:
        """Run the constructor. If it fails, the object is reset.

        Raises:
            DosqlError: what the constructor raised; ObjectError if it is none of ours.
        """

        async def construct() -> None:
            try:
                self._object = self.cls(self._ctx, self._env)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                self.activation.reset(
                    ObjectResetError(f"The object could not be constructed: {text}")
                )
                _log.exception("the constructor of object %s failed", self.id)
                failures.append(error)

        failures: list[Exception] = []
        self.sockets.activate(self.activation.emit)
        try:
            await self.activation.run(construct, waits=False)
        except ObjectResetError:
            if not failures:
                raise
        if failures:
            raise object_error(failures[0])

    def end(self) -> None:
        """The object leaves memory, or was reset."""
        self.sockets.deactivate()

    # --- calls --------------------------------------------------------------------------------

    async def call(
        self, method: RpcMethod, body: bytes, idempotency: Idempotency | None
    ) -> tuple[bytes, Bookmark, bool]:
        """Call a method: the reply's body, the state it reflects, and whether it is an earlier
        reply to the same idempotency key.

        The outcome is stored with what the method wrote after its last wait. A method that only
        read has none: it is called again, and the object need not exist for it.

        Raises:
            InstanceClosed: the object went to sleep before the method began.
            DosqlError: what the method raised; ObjectError if it is none of ours.
        """
        args, kwargs = method.decode_arguments(body)
        now_ms = self._clock.now_ms()
        activation = self.activation

        async def run() -> tuple[bytes, bool]:
            if idempotency is not None:
                stored = stored_outcome(activation.access.read(), idempotency, now_ms)
                if stored is not None:
                    return stored, True
            before = activation.effects
            value = method.function(self.object, *args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            result = method.encode_result(value)
            if idempotency is not None and activation.effects != before:
                store_outcome(activation.access.write(), idempotency, result, now_ms)
            return result, False

        try:
            (result, replayed), bookmark = await activation.run(run, waits=method.may_wait)
        except (DosqlError, InstanceClosed):
            raise
        except Exception as error:
            raise object_error(error) from error
        return result, bookmark, replayed

    async def fetch(self, request: Request) -> Response:
        """The object's answer to an HTTP request.

        Raises:
            InstanceClosed: the object went to sleep before the handler began.
            NotFoundError: ``no_fetch_handler``.
            DosqlError: what the handler raised; ObjectError if it is none of ours.
        """

        async def run() -> Response:
            response = self.handler("fetch")(request)
            if inspect.isawaitable(response):
                response = await response
            if not isinstance(response, Response):
                raise InvalidRequestError(
                    f"fetch() of {self.cls.__name__} returned {type(response).__name__}, "
                    "not a Response.",
                    code="invalid_response",
                )
            if response.web_socket is not None:
                self.sockets.adopt(response.web_socket)
            return response

        try:
            response, _ = await self.activation.run(run)
        except (DosqlError, InstanceClosed):
            raise
        except Exception as error:
            raise object_error(error) from error
        if response.is_stream:
            stream = self._gated(response.chunks())
            response = Response(stream, response.status, response.headers)
        return response

    async def _gated(self, stream: Any) -> AsyncIterator[bytes]:
        """The chunks of a response as an event of the object: each passes the output gate."""
        chunks: asyncio.Queue[bytes | str | None] = asyncio.Queue(1)

        async def produce() -> None:
            try:
                async for chunk in stream:
                    await self.activation.outgoing()
                    await chunks.put(chunk)
            finally:
                _log.debug("a stream of object %s ended", self.id)

        producer = await self.activation.start(produce)
        getting: asyncio.Task[bytes | str | None] | None = None
        try:
            while True:
                getting = asyncio.ensure_future(chunks.get())
                await asyncio.wait([getting, producer], return_when=asyncio.FIRST_COMPLETED)
                if not getting.done() and chunks.empty():
                    break
                chunk = await getting
                yield chunk.encode() if isinstance(chunk, str) else chunk or b""
            await producer  # raises what ended the stream early
        finally:
            producer.cancel()
            if getting is not None:
                getting.cancel()

    # --- sockets ------------------------------------------------------------------------------

    async def socket_event(
        self, connection: Connection, event: SocketEvent, started: Callable[[], None]
    ) -> None:
        """Run the handler of a socket's event. What it raises is logged.

        Raises:
            InstanceClosed: the object went to sleep before the event began.
            ObjectResetError: the object was reset before the event began.
            DosqlError: the event did not begin.
        """
        has_begun = False

        async def run() -> None:
            nonlocal has_begun
            has_begun = True
            started()
            for handler in self.sockets.begin(self.object, connection, event):
                try:
                    outcome = handler()
                    if inspect.isawaitable(outcome):
                        await outcome
                except Exception:
                    _log.exception("a WebSocket handler of object %s failed", self.id)

        try:
            await self.activation.run(run)
        except DosqlError as error:
            if has_begun:
                _log.warning("a WebSocket event of object %s was undone: %s", self.id, error)
            elif isinstance(self.activation.ended, DosqlError):
                raise ObjectResetError(error.message) from error  # whatever it was reset for
            else:
                raise

    # --- the end ------------------------------------------------------------------------------

    async def pre_shutdown(self, reason: str) -> None:
        """Let the object's hook run, if it has one, for as long as it may take."""
        if not hasattr(self.cls, "pre_shutdown"):
            return

        async def run() -> None:
            outcome = self.handler("pre_shutdown")(reason)
            if inspect.isawaitable(outcome):
                await outcome

        try:
            task = await self.activation.start(run)
            done, _ = await asyncio.wait([task], timeout=PRE_SHUTDOWN_S_MAX)
            if not done:
                task.cancel()
                await asyncio.wait([task])
                _log.warning("pre_shutdown() of object %s took too long", self.id)
            elif (error := task.exception()) is not None:
                _log.error("pre_shutdown() of object %s failed", self.id, exc_info=error)
        except DosqlError:
            _log.warning("pre_shutdown() of object %s did not run", self.id, exc_info=True)

    def handler(self, name: str) -> Callable[..., Any]:
        """The object's own. Raises NotFoundError, for example ``no_fetch_handler``."""
        handler: Callable[..., Any] | None = getattr(self.object, name, None)
        if handler is None:
            raise NotFoundError(
                f"{self.cls.__name__} has no {name}() handler.", code=f"no_{name}_handler"
            )
        return handler
