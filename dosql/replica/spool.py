"""Spool: one object's batches that wait for the bucket, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dosql.limits import REPLICA_BATCH_BYTES
from dosql.log.records import Batch
from dosql.pages import PageSet


class Spool:
    """In the order of their TXIDs, without gaps but where it was emptied."""

    def __init__(self, on_dropped: Callable[[int], None]) -> None:
        """``on_dropped`` gets the bytes of what is not kept any more."""
        self._on_dropped = on_dropped
        self._entries: deque[tuple[Batch, int]] = deque()
        self.bytes = 0
        """Of pages."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first_txid(self) -> int | None:
        """None: it is empty."""
        return self._entries[0][0].txid if self._entries else None

    def add(self, batch: Batch, catalog_txid: int) -> None:
        """``catalog_txid``: the catalog's batch that must be in the bucket before this one."""
        self._entries.append((batch, catalog_txid))
        self.bytes += batch.pages.size_bytes

    def find(self, txid: int) -> Batch | None:
        """The batch, if it waits."""
        return next((batch for batch, _ in self._entries if batch.txid == txid), None)

    def forget(self, txid: int) -> None:
        """The bucket has everything up to ``txid``."""
        while self._entries and self._entries[0][0].txid <= txid:
            batch, _ = self._entries.popleft()
            self.bytes -= batch.pages.size_bytes
            self._on_dropped(batch.pages.size_bytes)

    def clear(self) -> None:
        """Keep nothing."""
        self._on_dropped(self.bytes)
        self._entries.clear()
        self.bytes = 0

    def next(self, *, several: bool) -> tuple[list[Batch], int]:
        """The first batch, or, of several, as many as make one file of a good size; and the
        catalog's batch that must be in the bucket before them."""
        some: list[tuple[Batch, int]] = []
        size = 0
        for entry in self._entries:
            size += entry[0].pages.size_bytes
            if some and (not several or size > REPLICA_BATCH_BYTES):
                break
            some.append(entry)
        return [batch for batch, _ in some], max(txid for _, txid in some)


def joined(batches: list[PageSet]) -> PageSet:
    """Consecutive batches as one."""
    if len(batches) == 1:
        return batches[0]
    pages: dict[int, bytes] = {}
    for each in batches:
        pages.update(each.pages)
        if pages and max(pages) > each.commit:  # cut off: not the ones that grow there later
            pages = {pgno: page for pgno, page in pages.items() if pgno <= each.commit}
    last = batches[-1]
    return PageSet(last.page_size, last.commit, dict(sorted(pages.items())))
