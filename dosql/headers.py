"""Headers: what goes with a request or a response, by names whose case does not matter.

Names and values are checked when they are set: no control character gets in, so nothing can be
injected into the head of a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import cast

from dosql.errors import InvalidRequestError

HeadersInit = Mapping[str, str] | Iterable[tuple[str, str]] | None

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
"""Names of headers and of methods (RFC 9110, 5.6.2)."""
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Headers(MutableMapping[str, str]):
    """Header values by name; the case of names does not matter.

    Several headers of one name read as one, joined by a comma (RFC 9110, 5.3); `get_all` keeps
    them apart.

    Raises:
        InvalidRequestError: ``invalid_header``, whenever a name or value cannot be sent.
    """

    __slots__ = ("_pairs",)

    def __init__(self, headers: HeadersInit = None) -> None:
        self._pairs: list[tuple[str, str]] = []
        if isinstance(headers, Headers):
            self._pairs = list(headers._pairs)
        elif headers is not None:
            pairs = _pairs_of(headers)
            self._pairs = [_checked(name, value) for name, value in pairs]

    @classmethod
    def from_raw(cls, pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
        """From what a parser of HTTP has already checked: lower-case names, Latin-1."""
        headers = cls()
        headers._pairs = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs
        ]
        return headers

    def raw(self) -> list[tuple[bytes, bytes]]:
        """As they go on the wire: lower-case names, in order, duplicates kept."""
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._pairs]

    def get_all(self, name: str) -> list[str]:
        """Every value of this name, in order; empty if there is none."""
        wanted = name.lower()
        return [value for key, value in self._pairs if key == wanted]

    def add(self, name: str, value: str) -> None:
        """One more value of this name, as ``Set-Cookie`` needs it."""
        self._pairs.append(_checked(name, value))

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return values[0] if len(values) == 1 else ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        pair = _checked(name, value)
        self._pairs = [kept for kept in self._pairs if kept[0] != pair[0]]
        self._pairs.append(pair)

    def __delitem__(self, name: str) -> None:
        wanted = name.lower()
        kept = [pair for pair in self._pairs if pair[0] != wanted]
        if len(kept) == len(self._pairs):
            raise KeyError(name)
        self._pairs = kept

    def __contains__(self, name: object) -> bool:
        wanted = name.lower() if isinstance(name, str) else None
        return any(key == wanted for key, _ in self._pairs)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(dict(self._pairs))

    def __repr__(self) -> str:
        return f"Headers({self._pairs!r})"


def _pairs_of(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
) -> Iterable[tuple[str, str]]:
    if isinstance(headers, Mapping):
        return cast("Mapping[str, str]", headers).items()
    return headers


def _checked(name: str, value: str) -> tuple[str, str]:
    if not TOKEN.fullmatch(name):
        raise InvalidRequestError(f"{name!r} is not a header name.", code="invalid_header")
    if not _VALUE.fullmatch(value):
        raise InvalidRequestError(
            f"The value of the header {name!r} holds a character that cannot be sent.",
            code="invalid_header",
        )
    return name.lower(), value.strip(" \t")
