"""The address to listen on: parsed, judged, bound."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from dosql.errors import ConflictError, InvalidRequestError

_SHAPE = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_BACKLOG = 2_048


class Address(msgspec.Struct, frozen=True):
    """Host and port; port 0 means any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, setting: str = "listen") -> Address:
        """From ``127.0.0.1:8787``, ``[::1]:8787``, ``localhost:8787`` or ``:8787``.

        Raises:
            InvalidRequestError: ``invalid_settings``.
        """
        match = _SHAPE.fullmatch(text)
        if match is None or int(match["port"]) > 65_535:
            raise InvalidRequestError(
                f"Settings: {setting} must be host:port, not {text!r}.", code="invalid_settings"
            )
        return cls(match["six"] or match["host"] or "0.0.0.0", int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def bind(self) -> socket.socket:
        """A listening socket: from now on connections wait instead of being refused.

        Raises:
            ConflictError: ``address_in_use``, or another reason why it cannot be had.
        """
        try:
            family, kind, _, _, where = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen(_BACKLOG)
        except OSError as exc:
            raise ConflictError(
                f"Cannot listen on {self.host}:{self.port}: {exc.strerror or exc}.",
                code="address_in_use",
            ) from exc
        listener.setblocking(False)
        return listener


class Listens(msgspec.Struct, frozen=True):
    """Where to listen."""

    public: Address
    admin: Address | None
    """For the admin alone, if there is such an address."""

    @classmethod
    def parse(cls, public: str, admin: str | None) -> Listens:
        """Raises as `Address.parse`."""
        parsed = None if admin is None else Address.parse(admin, "admin_listen")
        return cls(Address.parse(public), parsed)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.public.is_loopback and (self.admin is None or self.admin.is_loopback)

    def bind(self) -> tuple[socket.socket, socket.socket | None]:
        """Both listeners. Raises as `Address.bind`."""
        listener = self.public.bind()
        try:
            return listener, None if self.admin is None else self.admin.bind()
        except ConflictError:
            listener.close()
            raise


def arrives_at(listener: socket.socket) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the connection of an ASGI scope came to this listener."""
    host, port = listener.getsockname()[:2]
    every = host in ("0.0.0.0", "::")

    def arrives(scope: Mapping[str, Any]) -> bool:
        server = scope["server"]
        return server is not None and server[1] == port and (every or server[0] == host)

    return arrives


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine finds the server."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
