"""Tenants, as the operator's routes tell of them."""

from __future__ import annotations

from typing import Literal

import msgspec

from dosql.durability import Durability
from dosql.wire.body import Body


class CreateTenant(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants``."""

    name: str


class TenantInfo(Body, omit_defaults=False):
    """What is known of one tenant. Times are RFC 3339 in UTC."""

    name: str
    id: str
    created_at: str
    last_used_at: str
    size_bytes: int
    txid: int
    state: Literal["awake", "hibernated"]
    replicated_txid: int | msgspec.UnsetType = msgspec.UNSET
    """With a bucket: the newest state that is in it."""
    replica_url: str | msgspec.UnsetType = msgspec.UNSET
    """With a bucket: what ``litestream restore`` takes."""
    durability: Durability = "local"
    """What its replies wait for."""


class TenantPage(Body, omit_defaults=False):
    """One page of tenants in name order; ``cursor`` leads to the next, null at the end."""

    tenants: list[TenantInfo]
    cursor: str | None
