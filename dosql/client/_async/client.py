"""AsyncClient: the way into one dosql server."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar, overload

import httpx2

from dosql.client._async.admin import AsyncAdmin
from dosql.client._async.objects import AsyncNamespace
from dosql.client._async.tenant import AsyncTenant
from dosql.client._async.transport import AsyncTransport

T = TypeVar("T")


class AsyncClient:
    """Connections to one dosql server, with one token.

    ``timeout_s`` limits each call in seconds, its repetitions included. ``retries`` is how
    often a call is repeated when the server did not act on it, or when the reply to one that
    may be repeated was lost: reads are, and so are writes, because each carries an idempotency
    key. ``transport`` replaces the network, for tests.

    Raises:
        InvalidRequestError: ``invalid_url`` or ``invalid_token``: they cannot be ones.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport = AsyncTransport(
            url, token=token, timeout_s=timeout_s, retries=retries, http_transport=transport
        )
        self.admin = AsyncAdmin(self._transport)
        """What the admin token may do."""

    @property
    def url(self) -> str:
        """The server's URL, without a slash at the end."""
        return self._transport.url

    def tenant(self, name: str) -> AsyncTenant:
        """One tenant's database. No request is made.

        Raises:
            InvalidRequestError: ``invalid_tenant_name``.
        """
        return AsyncTenant(self._transport, name)

    @overload
    def namespace(self, name: str) -> AsyncNamespace[Any]: ...
    @overload
    def namespace(self, name: str, kind: type[T]) -> AsyncNamespace[T]: ...
    def namespace(self, name: str, kind: type[Any] | None = None) -> AsyncNamespace[Any]:
        """The objects of one class. No request is made.

        With the class itself as ``kind``, or a Protocol that has its methods, results are
        converted to what the methods are annotated to return, and a method that it has not got
        is an AttributeError.

        Raises:
            InvalidRequestError: ``invalid_namespace``.
        """
        return AsyncNamespace(self._transport, name, kind)

    async def aclose(self) -> None:
        """Close all connections; open transactions are rolled back by the server."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
