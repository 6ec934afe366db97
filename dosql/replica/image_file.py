"""ImageFile: a whole database as one LTX file, made from a copy of the database file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dosql.pages import lock_page
from dosql.replica.ltx import Encoder, Header
from dosql.replica.plan import SNAPSHOT_LEVEL, FileInfo
from dosql.replica.replica import Replica, metadata_of


class ImageFile(msgspec.Struct, frozen=True):
    """On disk, to be removed by whoever has it."""

    path: Path
    header: Header
    size: int
    """Bytes."""

    def put(self, replica: Replica) -> list[FileInfo]:
        """To the raw level, as `make_raw_image` made it. Returns and raises: as `Replica.put`."""
        with self.path.open("rb") as source:
            return replica.put_image(self.header, source, self.size)

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
    count = _page_count(database, page_size)
    header = Header(page_size, count, min_txid, txid, timestamp_ms, epoch)
    return _encode(database, target, header)


def make_raw_image(
    database: Path,
    target: Path,
    *,
    page_size: int,
    min_txid: int,
    txid: int,
    timestamp_ms: int,
    epoch: int,
) -> ImageFile | None:
    """`make_image` for the raw level, whose next name is that of ``min_txid`` alone. None: the
    database is older than that."""
    if txid < min_txid:
        return None
    header = Header(
        page_size, _page_count(database, page_size), min_txid, min_txid, timestamp_ms, epoch
    )
    return _encode(database, target, header.reaching(txid) if txid > min_txid else header)


def _page_count(database: Path, page_size: int) -> int:
    return database.stat().st_size // page_size


def _encode(database: Path, target: Path, header: Header) -> ImageFile:
    page_size = header.page_size
    lock = lock_page(page_size)
    with database.open("rb") as source, target.open("wb") as out:
        encoder = Encoder(header, out.write)
        for pgno in range(1, header.commit + 1):
            page = source.read(page_size)
            if pgno != lock:
                encoder.page(pgno, page)
        encoder.finish()
    return ImageFile(target, header, encoder.size)
