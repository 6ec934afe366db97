"""Bookmark: the opaque, sortable name of one committed state of one object."""

from __future__ import annotations

import re

import msgspec

from dosql.errors import InvalidRequestError

_SHAPE = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})", re.ASCII)


class Bookmark(msgspec.Struct, frozen=True, order=True):
    """Sorts, as a value and as text, in the order of the object's commits."""

    txid: int
    """Number of the commit batch, from 1; 0 is the empty database."""
    incarnation: int
    """Which life of the object: a tenant deleted and made again starts another."""

    def __str__(self) -> str:
        return f"{self.txid:016x}-{self.incarnation:016x}"

    @classmethod
    def parse(cls, text: str) -> Bookmark:
        """Raises InvalidRequestError (``invalid_bookmark``) for anything ``str()`` did not make."""
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise InvalidRequestError("Not a bookmark.", code="invalid_bookmark")
        return cls(int(match[1], 16), int(match[2], 16))
