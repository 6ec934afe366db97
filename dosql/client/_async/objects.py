"""AsyncNamespace and AsyncStub: the objects of a class, from outside of the server.

The same names as ``env.ROOM`` inside of it; the contract suite runs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from dosql.client._async.responses import read_response
from dosql.client._async.sockets import AsyncObjectSocket
from dosql.client._async.transport import AsyncTransport
from dosql.client._order import AsyncAnyCall, AsyncTurn
from dosql.client.addresses import (
    address,
    check_namespace,
    check_object_name,
    fetch_call,
    list_call,
    rpc_call,
)
from dosql.client.calls import decode, idempotency_key_or_new
from dosql.client.methods import RemoteMethods, result_annotation
from dosql.client.reconnect import Reconnect, Resume
from dosql.client.responses import AsyncResponse
from dosql.errors import InvalidRequestError
from dosql.fetch import Request
from dosql.headers import HeadersInit
from dosql.ids import IdFactory, ObjectId
from dosql.rpc import decode_result, encode_call
from dosql.wire.objects import ObjectPage

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncNamespace(Generic[T]):
    """All objects of one class. ``T`` is the class, if the caller has it."""

    def __init__(self, transport: AsyncTransport, name: str, kind: type[T] | None) -> None:
        self._transport = transport
        self.name = check_namespace(name)
        self._methods = RemoteMethods(kind)
        self._ids = IdFactory(self.name)

    def id_from_name(self, name: str) -> ObjectId:
        """The id of the object with this name. No request is made; always the same answer.

        Raises:
            InvalidRequestError: ``invalid_object_name``.
        """
        return self._ids.from_name(check_object_name(name))

    def id_from_string(self, text: str) -> ObjectId:
        """Parse the 64 hex digits of an id; it does not know the name that it was made from.

        Raises:
            InvalidRequestError: ``invalid_object_id``: not that, or of another namespace.
        """
        return self._ids.from_string(text)

    def new_unique_id(self) -> ObjectId:
        """The id of a new object without a name; whoever loses it does not find the object."""
        return self._ids.unique(self._transport.randomness)

    def get(self, id: ObjectId) -> AsyncStub[T]:
        """The object with this id. No request is made; an object begins with its first call.

        Raises:
            InvalidRequestError: ``invalid_object_id``: an id of another namespace.
        """
        self._ids.from_string(str(id))
        return AsyncStub(self._transport, self.name, id, self._methods)

    def get_by_name(self, name: str) -> AsyncStub[T]:
        """The object with this name; the same as ``get(id_from_name(name))``.

        Raises:
            InvalidRequestError: ``invalid_object_name``.
        """
        return AsyncStub(self._transport, self.name, self.id_from_name(name), self._methods)

    async def list(
        self, prefix: str = "", limit: int = 1_000, cursor: str | None = None
    ) -> ObjectPage:
        """One page of the objects whose name begins with ``prefix``, in name order.

        Objects without a name are not in it. Pass the page's ``cursor`` to get the next one.

        Raises:
            NotFoundError: ``namespace_not_found``.
        """
        reply = await self._transport.send(list_call(self.name, prefix, limit, cursor))
        return decode(reply, ObjectPage)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class AsyncStub(Generic[T]):
    """One object. Every other attribute is a method of it, as in ``stub.rename("new")``.

    Calls on one stub reach the object in the order in which they were made: each waits for the
    reply to the one before. Calls that shall not wait for each other, such as one that ends only
    after another was made, take a stub each. A call whose reply is lost is repeated, and still
    runs once.

    Arguments and results travel by value, as `dosql.rpc` says. What the method raises arrives as
    an error of `dosql.errors`: one of these as itself, any other as an ObjectError.
    """

    def __init__(
        self, transport: AsyncTransport, namespace: str, id: ObjectId, methods: RemoteMethods
    ) -> None:
        self._transport = transport
        self._address = address(namespace, id)
        self._namespace = namespace
        self._methods = methods
        self._turn = AsyncTurn()
        self.id = id
        self.name = id.name
        """None for an object that is known by its id alone."""

    def __getattr__(self, name: str) -> AsyncAnyCall:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is private: only the object itself can call it")
        return partial(self._invoke, name, self._methods.result_of(name))

    @overload
    async def call(
        self,
        method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def call(
        self, method: Callable[Concatenate[T, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    async def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the class, as in ``stub.call(Room.rename, "new")``: a type checker
        knows its arguments and its result. It also reaches a method named like one of the stub.
        """
        return await self._invoke(method.__name__, result_annotation(method), *args, **kwargs)

    async def _invoke(self, method: str, annotation: Any, /, *args: Any, **kwargs: Any) -> Any:
        key = idempotency_key_or_new(None, self._transport.randomness)
        call = rpc_call(self._address, method, encode_call(args, kwargs), key)
        async with self._turn:
            reply = await self._transport.send(call)
        return decode_result(reply.body, annotation)

    async def fetch(
        self,
        request: Request | str,
        *,
        method: str = "GET",
        headers: HeadersInit = None,
        body: str | bytes | None = None,
    ) -> AsyncResponse:
        """What the object's ``fetch`` answers, whatever its status.

        ``request`` is a Request, or a path or URL with the rest beside it; of a URL only path and
        query reach the object. A long reply, or one whose length is not known from the start, is
        drawn as it is read. GET, HEAD and OPTIONS are repeated if their reply is lost; others
        then raise OutcomeUnknownError.
        """
        if isinstance(request, str):
            request = Request(request, method, headers, body)
        elif method != "GET" or headers is not None or body is not None:
            raise InvalidRequestError(
                "A Request has its own method, headers and body; change them by replace()."
            )
        call = fetch_call(self._address, request)
        async with self._turn:
            # From the pool of the long-lived: a reply that nobody reads holds no RPC up.
            response = await self._transport.stream(call, long_lived=True)
        return await read_response(response, self._transport.url)

    def connect(
        self,
        path: str = "/",
        *,
        headers: HeadersInit = None,
        reconnect: Reconnect | bool = False,
        resume: Resume | None = None,
    ) -> AsyncObjectSocket:
        """A WebSocket that the object accepts in its ``fetch``; a context manager connects it.

        ``reconnect``: find the way back after a lost connection; ``resume`` tells the object where
        to go on. See `AsyncObjectSocket`.
        """
        call = fetch_call(self._address, Request(path, "GET", headers))
        policy = Reconnect() if reconnect is True else reconnect or None
        url, sent = self._transport.handshake(call)
        return AsyncObjectSocket(
            url, sent, timeout_s=self._transport.timeout_s, reconnect=policy, resume=resume
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncStub) and (self._transport, self._namespace, self.id) == (
            other._transport,
            other._namespace,
            other.id,
        )

    def __hash__(self) -> int:
        return hash((self._namespace, self.id))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address}>"
