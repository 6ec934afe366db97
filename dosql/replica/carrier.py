"""Carrier: what the shipment of one object needs of its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from dosql.clock import Clock
from dosql.log.records import ObjectKey
from dosql.replica.image_file import ImageFile
from dosql.replica.pace import Pace

if TYPE_CHECKING:
    from dosql.replica.shipment import Shipment

T = TypeVar("T")


class Carrier(Protocol):
    """All shipments of a node share one."""

    epoch: int
    clock: Clock
    pace: Pace
    """Of the shipments that no reply waits for."""

    def is_own(self, epoch: int) -> bool:
        """Whether this data directory wrote a file of this epoch."""
        ...

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work on a thread for bucket requests."""
        ...

    async def image(self, key: ObjectKey, min_txid: int) -> ImageFile | None:
        """The whole database as it is now, as `make_raw_image` makes it; None: it is gone, or
        older than ``min_txid``."""
        ...

    async def catalog_known(self, key: ObjectKey) -> None:
        """Return when it is known that the catalog in the bucket is ours, whose ``key`` may be."""
        ...

    async def catalog_reached(self, txid: int) -> None:
        """Return when the catalog's batch ``txid`` is in the bucket."""
        ...

    def shipped(self, shipment: Shipment, size: int) -> None:
        """The bucket took a file of ``size`` bytes."""
        ...

    def fenced(self, shipment: Shipment) -> None:
        """Another process has the object."""
        ...

    def dropped(self, bytes: int) -> None:
        """Part of a spool was sent, or given up."""
        ...

    def rest(self, key: ObjectKey) -> None:
        """The object sleeps: what is kept of it can be less."""
        ...
