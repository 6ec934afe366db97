"""Slots: named positions in the changes of a tenant."""

from __future__ import annotations

from dosql.wire.body import Body


class CreateChangeSlot(Body, forbid_unknown_fields=True):
    """Body of ``POST /changes/slots``. Without ``after``: what comes from now on."""

    name: str
    after: int | None = None


class AcknowledgeChanges(Body, forbid_unknown_fields=True):
    """Body of ``POST /changes/slots/{name}/ack``: nothing up to ``seq`` is needed again."""

    seq: int


class ChangeSlot(Body, omit_defaults=False):
    """A named position in the changes of a tenant. Times are RFC 3339 in UTC."""

    name: str
    acked: int
    behind: int
    """How many changes there are behind ``acked``."""
    lost: bool
    """Some of them are not kept any more: its consumer will be told to begin anew."""
    created_at: str
    acked_at: str | None


class ChangeSlots(Body, omit_defaults=False):
    """All slots by name; ``seq`` is the number of the newest change."""

    slots: list[ChangeSlot]
    seq: int
