"""Tokens of tenants."""

from __future__ import annotations

from typing import Literal

from dosql.wire.body import Body


class CreateToken(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tokens``. ``expires_in`` in seconds; none: never."""

    tenant: str
    access: Literal["read-write", "read-only"] = "read-write"
    expires_in: int | None = None


class TokenCreated(Body, omit_defaults=False):
    """The only time the token itself is told."""

    id: str
    token: str
    expires_at: str | None


class TokenInfo(Body, omit_defaults=False):
    """What is known of a token; never the token."""

    id: str
    tenant: str
    access: Literal["read-write", "read-only"]
    created_at: str
    expires_at: str | None
    expired: bool
