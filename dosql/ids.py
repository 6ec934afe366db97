"""ObjectId: which durable object, for ever the same for the same namespace and name.

The construction is workerd's (server/actor-id-impl.c++): equal names give equal ids everywhere.
``K = SHA-256(unique key of the class)``, ``p`` = 16 bytes, ``id = p ‖ HMAC-SHA-256(K, p)[:16]``;
``p`` is ``HMAC-SHA-256(K, name)[:16]`` for a named object and random for a unique one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

from dosql.clock import Randomness
from dosql.errors import InvalidRequestError

_HEX_64 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_HALF = 16


@dataclass(frozen=True, slots=True)
class ObjectId:
    """32 bytes; ``str()`` gives 64 hex digits. ``name`` is known only if it made the id."""

    raw: bytes
    name: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.raw.hex()


class IdFactory:
    """Makes and checks the ids of one namespace."""

    def __init__(self, unique_key: str) -> None:
        self._key = hashlib.sha256(unique_key.encode()).digest()

    def from_name(self, name: str) -> ObjectId:
        """The id of the object with this name. No I/O; always the same answer."""
        return ObjectId(self._signed(self._mac(name.encode())), name)

    def unique(self, randomness: Randomness) -> ObjectId:
        """A new id that no name leads to."""
        return ObjectId(self._signed(randomness.token_bytes(_HALF)))

    def from_string(self, text: str) -> ObjectId:
        """Parse 64 hex digits.

        Raises:
            InvalidRequestError: not 64 hex digits, or an id of another namespace.
        """
        if not _HEX_64.fullmatch(text):
            raise InvalidRequestError(
                "Invalid Durable Object ID: must be 64 hex digits", code="invalid_object_id"
            )
        raw = bytes.fromhex(text)
        if not hmac.compare_digest(raw, self._signed(raw[:_HALF])):
            raise InvalidRequestError(
                "Durable Object ID is not valid for this namespace.", code="invalid_object_id"
            )
        return ObjectId(raw)

    def _mac(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, "sha256")[:_HALF]

    def _signed(self, prefix: bytes) -> bytes:
        return prefix + self._mac(prefix)
