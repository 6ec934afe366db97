"""DurableObject: the class that users subclass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from dosql.objects.state import ObjectState


class DurableObject:
    """One named thing with its own code, its own memory and its own database.

    There is at most one of each name, and its code never runs at two places at once: only where
    it awaits something can another event of the object come in between. Public methods can be
    called through a stub. These are called when something happens, if the class has them, as
    plain functions or ``async``::

        def fetch(self, request) -> Response
        def alarm(self, info) -> None
        def websocket_message(self, ws, message) -> None
        def websocket_close(self, ws, code, reason, was_clean) -> None
        def websocket_error(self, ws, error) -> None
        def pre_shutdown(self, reason) -> None      # before it leaves memory, 10 s at most

    The constructor runs at each wake: what must survive belongs into ``ctx.storage``.
    """

    ctx: ObjectState
    env: Any
    not_rpc: ClassVar[frozenset[str]] = frozenset()
    """Public methods that are not for callers: hooks of a base class, helpers for subclasses. A
    subclass adds names of its own; those of its bases stay hidden."""

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        self.ctx = ctx
        self.env = env
