"""Stub: a handle that sends calls to one object, wherever it is and whether it is awake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from dosql.errors import ConflictError
from dosql.fetch import Request, Response
from dosql.host.tenant import Done
from dosql.ids import ObjectId
from dosql.objects.durable_object import DurableObject
from dosql.objects.events import current_event
from dosql.objects.idempotency import Idempotency
from dosql.rpc import decode_result, encode_call

if TYPE_CHECKING:
    from dosql.host.objects import Objects

ObjectT = TypeVar("ObjectT", bound=DurableObject)
P = ParamSpec("P")
R = TypeVar("R")


class Stub(Generic[ObjectT]):
    """``await stub.method(...)`` calls a public method of the object; arguments and result are
    copied. ``await stub.call(Room.method, ...)`` is the same with types.

    Calls on one stub arrive in the order in which they were begun. From inside an object a call
    waits until what that object wrote before is durable.
    """

    def __init__(self, objects: Objects, namespace: str, id: ObjectId) -> None:
        self.id = id
        self._objects = objects
        self._namespace = namespace

    @property
    def name(self) -> str | None:
        """The name that the stub was made from, if it was."""
        return self.id.name

    async def fetch(
        self,
        request: Request | str,
        *,
        method: str = "GET",
        headers: Any = None,
        body: str | bytes | None = None,
    ) -> Response:
        """The object's answer to an HTTP request, or to a URL or path.

        Raises:
            NotFoundError: ``no_fetch_handler``.
            DosqlError: what the handler raised; ObjectError if it is none of ours.
        """
        if not isinstance(request, Request):
            request = Request(request, method, headers, body)
        await _leave()
        return await self._objects.fetch(self._namespace, self.id, request)

    async def forward(
        self, scope: Any, receive: Any, send: Any, *, path: str | None = None
    ) -> None:
        """For an application that `App.mount` was given: let the object answer a request, or a
        WebSocket, of ASGI's; ``path`` (not encoded) instead of the request's own.

        Raises:
            ConflictError: ``not_in_server``: the request did not come through dosql's server.
        """
        forward: Callable[..., Awaitable[None]] | None = scope.get("dosql.forward")
        if forward is None:
            raise ConflictError(
                "Only a request that came through `dosql serve` can be forwarded.",
                code="not_in_server",
            )
        await forward(self, scope, receive, send, path)

    @overload
    async def call(
        self,
        method: Callable[Concatenate[ObjectT, P], Awaitable[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def call(
        self, method: Callable[Concatenate[ObjectT, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the class: ``await stub.call(Room.rename, "new title")``.

        Raises:
            NotFoundError: ``method_not_found``: it cannot be called from outside.
            DosqlError: what the method raised; ObjectError if it is none of ours.
        """
        return await self._rpc(method.__name__, args, kwargs)

    async def invoke(
        self, method: str, body: bytes, *, idempotency: Idempotency | None = None
    ) -> Done:
        """A call whose arguments and result stay encoded (see `dosql.rpc`)."""
        await _leave()
        return await self._objects.invoke(
            self._namespace, self.id, method, body, idempotency=idempotency
        )

    async def _rpc(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        done = await self.invoke(name, encode_call(args, kwargs))
        return decode_result(done.body, self._objects.method(self._namespace, name).returns)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def method(*args: Any, **kwargs: Any) -> Any:
            return await self._rpc(name, args, kwargs)

        return method

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stub) and (self._namespace, self.id) == (
            other._namespace,
            other.id,
        )

    def __hash__(self) -> int:
        return hash((self._namespace, self.id))

    def __repr__(self) -> str:
        return f"<Stub {self._namespace}/{self.name or self.id}>"


async def _leave() -> None:
    """A call leaves the object whose code makes it, if one does: the output gate."""
    event = current_event.get()
    if event is not None:
        await event.activation.outgoing()
