"""The proof that a backup is real: a stranger's tool restores it, to the byte.

Databases are live SQLite files; Litestream is the released binary.
"""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from dosql.errors import CorruptError, NotFoundError
from dosql.replica.plan import SNAPSHOT_LEVEL, restore_plan
from tests.replica.litestream import FileReplica, litestream
from tests.replica.sources import Source, source, time_of, work

PAGE_SIZES = [4096, 512, 65536, 1024, 8192, 2048, 16384, 32768]
States = dict[int, bytes]
"""The checkpointed file after some of the transactions."""


def run(opened: Source, draw: random.Random, batches: int, blob_bytes: int) -> States:
    """Random batches of 1 to 4 transactions; checkpoints at random moments."""
    states = {opened.txid: opened.checkpointed()}
    for _ in range(batches):
        for _ in range(draw.choice([1, 1, 2, 4])):
            work(opened.db, draw, blob_bytes)
        opened.ship()
        if draw.random() < 0.2:
            states[opened.txid] = opened.checkpointed()
    states[opened.txid] = opened.checkpointed()
    return states


def compact(replica: FileReplica, draw: random.Random) -> None:
    """Level 1 from runs of raw files, level 9 from all up to some point; some raw files go."""
    raw = [file for file in replica.files() if file.level == 0]
    at = 0
    while at < len(raw):
        end = at + draw.randint(2, 7)
        replica.merge(raw[at:end], 1)
        at = end
    last = draw.choice(raw[1:])
    replica.merge(restore_plan(replica.files(), last.max_txid), SNAPSHOT_LEVEL)
    for file in raw[: len(raw) // 2]:
        replica.drop(file)


def compare(
    replica: FileReplica, states: States, tmp: Path, draw: random.Random, samples: int
) -> None:
    """Latest, by TXID and by time; both programs, against the live file."""
    ours, theirs = tmp / "ours.db", tmp / "theirs.db"
    last = max(states)
    chosen = draw.sample(sorted(states), min(samples, len(states)))
    wanted = [({}, last), *(({"txid": txid}, txid) for txid in chosen)]
    wanted += [({"at": time_of(txid) + draw.choice([0, 999])}, txid) for txid in chosen]
    for target, txid in wanted:
        state, image = replica.restore_ours(ours, **target)
        assert (state.txid, state.timestamp_ms) == (txid, time_of(txid)), target
        assert image == states[txid], f"ours, {target}"
        if "at" in target and txid == last:
            continue  # Litestream refuses times behind the last file
        assert replica.restore_theirs(theirs, **target) == states[txid], f"theirs, {target}"


def check(
    tmp: Path, seed: int, *, batches: int, blob_bytes: int, samples: int, ballast_bytes: int = 0
) -> None:
    print(f"seed {seed}")
    draw = random.Random(seed)
    replica = FileReplica(tmp / "replica")
    page_size, vacuum = PAGE_SIZES[seed % len(PAGE_SIZES)], seed % 3
    with source(tmp / "live.db", replica, page_size, vacuum, legacy=seed % 4 == 3) as opened:
        for _ in range(ballast_bytes // 1_000_000):
            opened.db.execute("CREATE TABLE IF NOT EXISTS ballast (v)")
            opened.db.execute("INSERT INTO ballast VALUES (?)", (draw.randbytes(1_000_000),))
        opened.ship()
        states = run(opened, draw, batches, blob_bytes)
        assert min(map(len, states.values())) > ballast_bytes
    compare(replica, states, tmp, draw, samples)
    compact(replica, draw)
    kept = {}
    for txid, image in states.items():
        try:
            restore_plan(replica.files(), txid)
        except NotFoundError:  # inside a merged file by now
            continue
        kept[txid] = image
    assert max(kept) == max(states)
    compare(replica, kept, tmp, draw, samples)


@pytest.mark.parametrize("seed", range(8))
def test_litestream_restores_what_we_shipped_and_compacted(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed, batches=30, blob_bytes=20_000, samples=2)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 120))
def test_litestream_restores_long_histories(tmp_path: Path, seed: int) -> None:
    """The last five are of more than 100 MB."""
    if seed >= 115:
        check(
            tmp_path, seed, batches=15, blob_bytes=2_000_000, samples=1, ballast_bytes=100_000_000
        )
    else:
        check(tmp_path, seed, batches=150, blob_bytes=200_000, samples=3)


def test_litestream_takes_a_fence_without_pages(tmp_path: Path) -> None:
    replica = FileReplica(tmp_path / "replica")
    with source(tmp_path / "live.db", replica, 4096, 0) as opened:
        opened.db.execute("INSERT INTO t (v) VALUES (1)")
        opened.ship()
        opened.fence()
        image = opened.checkpointed()
    assert replica.restore_theirs(tmp_path / "theirs.db", txid=3) == image
    state, ours = replica.restore_ours(tmp_path / "ours.db")
    assert (state.txid, ours) == (3, image)


def test_litestream_refuses_the_gap_that_we_refuse(tmp_path: Path) -> None:
    replica = FileReplica(tmp_path / "replica")
    with source(tmp_path / "live.db", replica, 4096, 0) as opened:
        for number in range(5):
            opened.db.execute("INSERT INTO t (v) VALUES (?)", (number,))
            opened.ship()
    replica.drop(replica.files()[2])
    with pytest.raises(AssertionError, match="non-contiguous"):
        replica.restore_theirs(tmp_path / "theirs.db")
    with pytest.raises(CorruptError, match="gap: nothing from TXID 3 to 3"):
        replica.restore_ours(tmp_path / "ours.db")


@pytest.mark.parametrize("page_size", [4096, 512, 65536])
def test_we_restore_what_litestream_shipped(tmp_path: Path, page_size: int) -> None:
    """With its own snapshots and whatever it writes; after every sync, and after our merge."""
    draw = random.Random(page_size)
    replica = FileReplica(tmp_path / "replica")
    live = tmp_path / "live.db"
    db = apsw.Connection(str(live))
    db.pragma("page_size", page_size)
    assert db.pragma("journal_mode", "wal") == "wal"
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    for number in range(5):
        for _ in range(10):
            work(db, draw, 20_000)
        snapshot = ["-force-snapshot"] if number == 3 else []
        litestream("replicate", "-once", *snapshot, str(live), replica.url)
        theirs = replica.restore_theirs(tmp_path / "theirs.db")
        _, ours = replica.restore_ours(tmp_path / "ours.db")
        assert ours == theirs
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    assert ours == live.read_bytes()
    files = replica.files()
    assert {file.level for file in files} >= {0, SNAPSHOT_LEVEL} and len(files) >= 6
    for file in files:
        state, image = replica.restore_ours(tmp_path / "ours.db", txid=file.max_txid)
        assert state.txid == file.max_txid
        assert replica.restore_theirs(tmp_path / "theirs.db", txid=file.max_txid) == image
    replica.merge([file for file in files if file.level == 0], 2)
    for file in files:
        replica.drop(file)
    assert replica.restore_ours(tmp_path / "ours.db")[1] == live.read_bytes()
    assert replica.restore_theirs(tmp_path / "theirs.db") == live.read_bytes()
