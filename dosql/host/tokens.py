"""Tokens: text that opens one tenant, for reading or for reading and writing.

A token is ``dsk_<id>_<secret>``: the prefix is for secret scanners, the id (16 hex digits) finds
its row, the secret has 256 random bits. Only SHA-256 of the whole text is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal

import msgspec

from dosql.clock import Clock, Randomness, iso_from_ms
from dosql.errors import InvalidRequestError, NotFoundError
from dosql.host.catalog import Catalog, TokenEntry
from dosql.wire.tokens import TokenCreated, TokenInfo

_TOKEN = re.compile(r"dsk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}", re.ASCII)
_EXPIRES_IN_S_MAX = 100 * 365 * 24 * 3600
_CACHED_MAX = 10_000

Access = Literal["read-write", "read-only"]


class Token(msgspec.Struct, frozen=True):
    """A token that was checked."""

    id: str
    tenant: str
    read_only: bool
    expires_at_ms: int | None


class Tokens:
    """The tokens of all tenants."""

    def __init__(self, catalog: Catalog, clock: Clock, randomness: Randomness) -> None:
        self._catalog = catalog
        self._clock = clock
        self._randomness = randomness
        self._checked: dict[str, Token] = {}
        """Token text to what it opens, so that a request costs one look-up."""

    async def create(self, tenant: str, access: Access, expires_in_s: int | None) -> TokenCreated:
        """A new token, durable when this returns.

        Raises:
            NotFoundError: ``tenant_not_found``.
            InvalidRequestError: ``invalid_request``: the life is not 1 second to 100 years.
        """
        if self._catalog.find(tenant) is None:
            raise NotFoundError("There is no such tenant.", code="tenant_not_found")
        if expires_in_s is not None and not 0 < expires_in_s <= _EXPIRES_IN_S_MAX:
            raise InvalidRequestError("expiresIn is the token's life in seconds, at least 1.")
        now = self._clock.now_ms()
        id = self._randomness.token_bytes(8).hex()
        text = f"dsk_{id}_{self._randomness.token_urlsafe(32)}"
        expires_at = None if expires_in_s is None else now + expires_in_s * 1000
        await self._catalog.put_token(TokenEntry(id, _hash(text), tenant, access, now, expires_at))
        return TokenCreated(id, text, None if expires_at is None else iso_from_ms(expires_at))

    def check(self, text: str) -> Token | None:
        """What the token opens now; None if it is unknown, revoked or expired."""
        token = self._checked.get(text)
        if token is None:
            match = _TOKEN.fullmatch(text)
            entry = self._catalog.find_token(match[1]) if match else None
            if entry is None or not hmac.compare_digest(entry.hash, _hash(text)):
                return None
            token = Token(entry.id, entry.name, entry.access == "read-only", entry.expires_at_ms)
            if len(self._checked) >= _CACHED_MAX:
                self._checked.clear()
            self._checked[text] = token
        if token.expires_at_ms is not None and token.expires_at_ms <= self._clock.now_ms():
            return None
        return token

    def get(self, token_id: str) -> TokenInfo:
        """Raises NotFoundError (``token_not_found``)."""
        entry = self._find(token_id)
        expires = entry.expires_at_ms
        return TokenInfo(
            id=entry.id,
            tenant=entry.name,
            access="read-only" if entry.access == "read-only" else "read-write",
            created_at=iso_from_ms(entry.created_at_ms),
            expires_at=None if expires is None else iso_from_ms(expires),
            expired=expires is not None and expires <= self._clock.now_ms(),
        )

    async def revoke(self, token_id: str) -> None:
        """The token opens nothing from now on. Raises NotFoundError (``token_not_found``)."""
        self._find(token_id)
        self.forget()
        await self._catalog.delete_token(token_id)
        self.forget()

    def forget(self) -> None:
        """Look every token up again: some are gone."""
        self._checked.clear()

    def _find(self, token_id: str) -> TokenEntry:
        entry = self._catalog.find_token(token_id)
        if entry is None:
            raise NotFoundError("There is no such token.", code="token_not_found")
        return entry


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
