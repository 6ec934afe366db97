"""Named objects of a class."""

from __future__ import annotations

from typing import Literal

from dosql.durability import Durability
from dosql.wire.body import Body


class ObjectInfo(Body, omit_defaults=False):
    """What is known of one named object of a class. Times are RFC 3339 in UTC."""

    name: str
    id: str
    created_at: str
    last_used_at: str
    size_bytes: int
    state: Literal["awake", "hibernated"]
    sockets: int
    durability: Durability = "local"
    """What its replies wait for."""


class ObjectPage(Body, omit_defaults=False):
    """One page of objects in name order; ``cursor`` leads to the next, null at the end."""

    objects: list[ObjectInfo]
    cursor: str | None
