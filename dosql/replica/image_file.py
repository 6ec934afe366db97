"""ImageFile: a whole database as one LTX file, made from a copy of the database file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dosql.replica.ltx import Encoder, Header, lock_page
from dosql.replica.plan import SNAPSHOT_LEVEL
from dosql.replica.replica import Replica, metadata_of


@dataclass(frozen=True, slots=True)
class ImageFile:
    """On disk, to be removed by whoever has it."""

    path: Path
    header: Header
    size: int
    """Bytes."""

    def put(self, replica: Replica) -> None:
        """To the raw level. Raises: as `Replica.put`."""
        with self.path.open("rb") as source:
            replica.put_image(self.header, source, self.size)

    def put_snapshot(self, replica: Replica) -> None:
        """To the level of snapshots; its first TXID is 1. A snapshot already there is kept."""
        key = replica.layout.key(SNAPSHOT_LEVEL, self.header.min_txid, self.header.max_txid)
        with self.path.open("rb") as source:
            replica.bucket.put(key, source, metadata=metadata_of(self.header))

    def remove(self) -> None:
        """The file is needed no more."""
        self.path.unlink(missing_ok=True)


def make_image(
    database: Path,
    target: Path,
    *,
    page_size: int,
    min_txid: int,
    txid: int,
    timestamp_ms: int,
    epoch: int,
) -> ImageFile:
    """Encode a database file at rest, whose state is that after ``txid``. Blocking."""
    size = database.stat().st_size
    header = Header(page_size, size // page_size, min_txid, txid, timestamp_ms, epoch)
    lock = lock_page(page_size)
    with database.open("rb") as source, target.open("wb") as out:
        encoder = Encoder(header, out.write)
        for pgno in range(1, header.commit + 1):
            page = source.read(page_size)
            if pgno != lock:
                encoder.page(pgno, page)
        encoder.finish()
    return ImageFile(target, header, encoder.size)
