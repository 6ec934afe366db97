"""Seeds: what the commit log held when the host started."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dosql.limits import REPLICA_SPOOL_BYTES_MAX
from dosql.log.records import Batch, Drop, Found, ObjectKey


class Seeds:
    """The commits that a redo found in the log: the bucket may lack them."""

    def __init__(self) -> None:
        self.batches: dict[ObjectKey, list[Batch]] = {}
        self.tails: dict[ObjectKey, int] = {}
        """The newest of each."""
        self.dropped: list[ObjectKey] = []
        """Objects that ceased to exist."""
        self._bytes = 0

    def watch(self, records: Iterable[tuple[int, Found]]) -> Iterator[tuple[int, Found]]:
        """Hand the records through, and remember them as far as memory allows."""
        for sequence, record in records:
            if isinstance(record, Batch):
                kept = self.batches.setdefault(record.key, [])
                self.tails[record.key] = record.txid
                self._bytes += record.pages.size_bytes
                if self._bytes <= REPLICA_SPOOL_BYTES_MAX:
                    kept.append(record)
                else:
                    kept.clear()  # a gap would be no use: a whole image is sent
            elif isinstance(record, Drop):
                self.batches.pop(record.key, None)
                self.tails.pop(record.key, None)
                self.dropped.append(record.key)
            yield sequence, record
