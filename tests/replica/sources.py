"""Live SQLite databases whose batches are captured from the -wal, and random work on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from dosql.pages import PageSet, lock_page
from dosql.replica.ltx import Header
from dosql.sqlite.wal import WalReader
from tests.replica.litestream import FileReplica

START_MS = 1_700_000_000_000


def time_of(txid: int) -> int:
    """A second per transaction."""
    return START_MS + txid * 1000


class Source:
    """One database; `ship` brings what was committed since to the replica, under one TXID."""

    def __init__(
        self, path: Path, replica: FileReplica, page_size: int, vacuum: int, *, legacy: bool = False
    ) -> None:
        self.path, self.page_size = path, page_size
        self.txid = 0
        self._replica, self._legacy = replica, legacy
        self.db = apsw.Connection(str(path))
        self.db.pragma("page_size", page_size)
        self.db.pragma("auto_vacuum", vacuum)
        assert self.db.pragma("journal_mode", "wal") == "wal"
        self.db.pragma("synchronous", "OFF")
        self.db.wal_autocheckpoint(0)
        self.db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
        self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.db.set_wal_hook(self._committed)
        self._frames = self._shipped = 0
        self._wal = WalReader(path, page_size)
        image = path.read_bytes()
        self._pages = len(image) // page_size
        first = {
            at // page_size + 1: image[at : at + page_size]
            for at in range(0, len(image), page_size)
        }
        self._put(PageSet(page_size, self._pages, first))

    def _committed(self, _db: apsw.Connection, _schema: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK

    def _put(self, pages: PageSet) -> None:
        self.txid += 1
        pages = pages.filled(self._pages)
        assert lock_page(pages.page_size) not in pages.pages
        header = Header(
            page_size=pages.page_size,
            commit=pages.commit,
            min_txid=self.txid,
            max_txid=self.txid,
            timestamp_ms=time_of(self.txid),
            node_id=7,
        )
        self._replica.put(header, pages.pages, legacy=self._legacy)
        self._pages = pages.commit

    def ship(self) -> None:
        """Nothing if nothing was committed."""
        if self._frames != self._shipped:
            self._put(self._wal.read(self._shipped, self._frames))
            self._shipped = self._frames

    def fence(self) -> None:
        """A transaction that changes nothing, as a takeover writes it."""
        self._put(PageSet(self.page_size, self._pages, {}))

    def checkpointed(self) -> bytes:
        """The database file when the -wal is empty: what every restore must give."""
        assert self._shipped == self._frames
        self.db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._frames = self._shipped = 0
        return self.path.read_bytes()

    def close(self) -> None:
        self._wal.close()
        self.db.close()


@contextmanager
def source(
    path: Path, replica: FileReplica, page_size: int, vacuum: int, *, legacy: bool = False
) -> Iterator[Source]:
    opened = Source(path, replica, page_size, vacuum, legacy=legacy)
    try:
        yield opened
    finally:
        opened.close()


def work(db: apsw.Connection, draw: random.Random, blob_bytes: int) -> None:
    """One random transaction, or VACUUM, or one that changes nothing."""
    own = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 't*'"
    tables = [name for (name,) in db.execute(own)]  # Litestream adds two of its own
    table = draw.choice(tables)
    kind = draw.choices(
        ["insert", "update", "delete", "create", "drop", "vacuum", "increment", "both", "many"],
        [9, 5, 4, 2, 2, 1, 2, 1, 3],
    )[0]
    if kind == "insert":
        db.execute(
            f"INSERT INTO {table} (v) VALUES (?)", (draw.randbytes(draw.randrange(blob_bytes)),)
        )
    elif kind == "many":
        text = "some text that compresses well, " * draw.randint(1, 9)
        with db:
            db.executemany(
                f"INSERT INTO {table} (v) VALUES (?)", [(text + str(n),) for n in range(50)]
            )
    elif kind == "update":
        db.execute(
            f"UPDATE {table} SET v = v || ? WHERE id % 7 = ?", (b"x" * 40, draw.randrange(7))
        )
    elif kind == "delete":
        db.execute(f"DELETE FROM {table} WHERE id % 5 = ?", (draw.randrange(5),))
    elif kind == "create":
        name = f"t{draw.randrange(1 << 40)}"
        db.execute(
            f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, v); CREATE INDEX i{name} ON {name} (v)"
        )
    elif kind == "drop" and table != "t":
        db.execute(f"DROP TABLE {table}")
    elif kind == "vacuum":
        db.execute("VACUUM")
    elif kind == "increment":
        # To its end: dropped before, it commits, and the hook fires with the next statement only.
        db.execute(f"PRAGMA incremental_vacuum({draw.randint(1, 20)})").fetchall()
    elif kind == "both":
        with db:
            db.execute(
                "CREATE TABLE gone (v); INSERT INTO gone VALUES (zeroblob(50000)); DROP TABLE gone"
            )
