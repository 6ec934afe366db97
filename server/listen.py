"""The address to listen on: parsed, judged, bound."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from dosql.errors import ConflictError, InvalidRequestError

_SHAPE = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_BACKLOG = 2_048


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port; port 0 means any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From ``127.0.0.1:8787``, ``[::1]:8787``, ``localhost:8787`` or ``:8787``.

        Raises:
            InvalidRequestError: ``invalid_settings``.
        """
        match = _SHAPE.fullmatch(text)
        if match is None or int(match["port"]) > 65_535:
            raise InvalidRequestError(
                f"Settings: listen must be host:port, not {text!r}.", code="invalid_settings"
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


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine finds the server."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
