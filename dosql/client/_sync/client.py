# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Client: the way into one dosql server."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar, overload

import httpx2

from dosql.client._sync.admin import Admin
from dosql.client._sync.objects import Namespace
from dosql.client._sync.tenant import Tenant
from dosql.client._sync.transport import Transport

T = TypeVar("T")


class Client:
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
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._transport = Transport(
            url, token=token, timeout_s=timeout_s, retries=retries, http_transport=transport
        )
        self.admin = Admin(self._transport)
        """What the admin token may do."""

    @property
    def url(self) -> str:
        """The server's URL, without a slash at the end."""
        return self._transport.url

    def tenant(self, name: str) -> Tenant:
        """One tenant's database. No request is made.

        Raises:
            InvalidRequestError: ``invalid_tenant_name``.
        """
        return Tenant(self._transport, name)

    @overload
    def namespace(self, name: str) -> Namespace[Any]: ...
    @overload
    def namespace(self, name: str, kind: type[T]) -> Namespace[T]: ...
    def namespace(self, name: str, kind: type[Any] | None = None) -> Namespace[Any]:
        """The objects of one class. No request is made.

        With the class itself as ``kind``, or a Protocol that has its methods, results are
        converted to what the methods are annotated to return, and a method that it has not got
        is an AttributeError.

        Raises:
            InvalidRequestError: ``invalid_namespace``.
        """
        return Namespace(self._transport, name, kind)

    def close(self) -> None:
        """Close all connections; open transactions are rolled back by the server."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
