"""Where a request comes from, for limits by address.

The peer's own address, unless that peer is a proxy that the operator named: only what such a
proxy says in X-Forwarded-For counts, read from the right, so a client cannot choose its address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from dosql.errors import InvalidRequestError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOCAL = "local"
"""The peer of a Unix socket."""
_HOPS_MAX = 32


class ClientAddress:
    """``trusted``: networks of proxies, ``10.0.0.0/8`` or a single address.

    Raises:
        InvalidRequestError: ``invalid_settings``.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted: list[_Network] = []
        for text in trusted:
            try:
                self._trusted.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise InvalidRequestError(
                    f"Settings: trusted_proxies: {text!r} is neither an address nor a network.",
                    code="invalid_settings",
                ) from None

    def __call__(self, peer: tuple[str, int] | None, forwarded_for: bytes | None) -> str:
        """What to count by: an IPv4 address, or the /64 that an IPv6 address is in."""
        if peer is None:
            return LOCAL
        if not self._trusted or forwarded_for is None:
            return _counted(peer[0])
        return self._behind_proxies(peer[0], forwarded_for)

    def _behind_proxies(self, peer: str, forwarded_for: bytes) -> str:
        hops = forwarded_for.decode("latin-1").split(",")[-_HOPS_MAX:]
        address = _parse(peer)
        while address is not None and hops and self._is_trusted(address):
            hop = _parse(_without_port(hops.pop().strip()))
            if hop is None:  # the proxy passed on nonsense, or its own client's
                break
            address = hop
        return peer if address is None else _counted(str(address))

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


@lru_cache(10_000)
def _counted(text: str) -> str:
    address = _parse(text)
    if address is None:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _parse(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
