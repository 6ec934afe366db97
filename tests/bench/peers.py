"""Peers in the same process: SQLite by itself, through APSW, in a loop.

The connection is set as the server sets its own, except for who makes commits durable: nobody, or
SQLite with one sync per commit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import apsw
import msgspec

from tests.bench.generator import percentile
from tests.bench.workloads import (
    BULK_ROWS,
    CREATE,
    INSERT,
    READ,
    SELECT_WIDE,
    SMALL_ROWS,
    TENANTS,
    create_wide,
    fill,
    fill_wide,
)

_encode = msgspec.json.Encoder().encode


class Loops:
    """Databases in one directory, and the loops over them; each gives operations per second."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._unsynced = [_open(directory / f"off-{n}.db", "OFF") for n in range(TENANTS)]
        self._synced = [_open(directory / f"full-{n}.db", "FULL") for n in range(TENANTS)]
        first = self._unsynced[0]
        first.execute(fill(SMALL_ROWS))
        first.execute(create_wide())
        first.execute(fill_wide())

    def close(self) -> None:
        """Give the files back."""
        for connection in (*self._unsynced, *self._synced):
            connection.close()

    def reads(self, seconds: float) -> float:
        """Point reads."""
        ids = cycle(range(1, SMALL_ROWS + 1))
        cursor = self._unsynced[0].cursor()
        return _rate(lambda: cursor.execute(READ, (next(ids),)).fetchall(), seconds)

    def inserts(self, seconds: float, *, synced: bool, databases: int = 1) -> float:
        """Single-row inserts, each a commit, over so many databases in turn."""
        connections = cycle((self._synced if synced else self._unsynced)[:databases])
        return _rate(lambda: next(connections).execute(INSERT, ("hello",)), seconds)

    def bulk(self, seconds: float) -> float:
        """Transactions of `BULK_ROWS` inserts, each synced once."""
        connection = self._synced[0]

        def once() -> None:
            connection.execute("BEGIN IMMEDIATE")
            for number in range(BULK_ROWS):
                connection.execute(INSERT, (f"value {number}",))
            connection.execute("COMMIT")

        return _rate(once, seconds)

    def results(self, seconds: float) -> float:
        """10,000 rows of 10 columns, as JSON objects."""
        connection = self._unsynced[0]

        def once() -> None:
            cursor = connection.execute(SELECT_WIDE)
            columns = [each[0] for each in cursor.get_description()]
            _encode({"rows": [dict(zip(columns, row, strict=True)) for row in cursor]})

        return _rate(once, seconds)


def _open(path: Path, synchronous: str) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.pragma("locking_mode", "EXCLUSIVE")
    connection.pragma("journal_mode", "WAL")
    connection.pragma("synchronous", synchronous)
    connection.wal_autocheckpoint(4_000)
    connection.execute(CREATE)
    return connection


def _rate(once: Callable[[], object], seconds: float) -> float:
    started = now = time.perf_counter()
    count = 0
    while now - started < seconds or not count:
        once()
        count += 1
        now = time.perf_counter()
    return count / (now - started)


def sync_ms(directory: Path, count: int = 200) -> tuple[float, float]:
    """Median and 99th percentile of writing 4 KB into a written file and syncing it."""
    path = directory / "sync.probe"
    block = os.urandom(4096)
    times_s: list[float] = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, bytes(4096 * count), 0)
        os.fsync(fd)
        for number in range(count):
            started = time.perf_counter()
            os.pwrite(fd, block, 4096 * number)
            os.fdatasync(fd)
            times_s.append(time.perf_counter() - started)
    finally:
        os.close(fd)
        path.unlink()
    times_s.sort()
    return percentile(times_s, 0.5) * 1000, percentile(times_s, 0.99) * 1000


def open_ms(path: Path, sql: str, count: int) -> float:
    """Median of opening a database file with APSW and reading its first row."""
    times_s: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        connection = apsw.Connection(str(path))
        connection.execute(sql).fetchall()
        times_s.append(time.perf_counter() - started)
        connection.close()
    return percentile(sorted(times_s), 0.5) * 1000
