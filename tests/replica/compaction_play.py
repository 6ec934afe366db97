"""Random histories of one object: writes, merges, sweeps, crashes in between; and what must hold.

Time is a clock that is moved by hand; retention is scaled down from days to hours.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from dosql.errors import DosqlError, OutcomeUnknownError, UnavailableError
from dosql.pages import PageSet
from dosql.replica.bucket import Bucket
from dosql.replica.chain import MERGED_LEVELS, Chain, look, span_end_ms
from dosql.replica.compactor import Compactor
from dosql.replica.layout import Layout
from dosql.replica.ltx import Header
from dosql.replica.plan import FileInfo, restore_plan
from dosql.replica.recent_files import RecentFiles
from dosql.replica.replica import Replica
from dosql.replica.retention import RetentionSettings, sweep
from dosql.testing.clock import ManualClock
from tests.replica.litestream import FileReplica
from tests.replica.sources import Source, work

HOUR_MS = 3_600_000
SCALED = RetentionSettings(history_ms=8 * HOUR_MS, commits_ms=HOUR_MS // 2, fine_ms=2 * HOUR_MS)
GRACE_MS = 2_000


@dataclass(frozen=True)
class State:
    """One commit, as the live database had it."""

    txid: int
    at_ms: int
    image: bytes


class Shipping(FileReplica):
    """Takes the batches of a `Source` to a bucket, at the time of the clock."""

    def __init__(self, root: Path, replica: Replica, clock: ManualClock) -> None:
        super().__init__(root)
        self._replica, self._clock = replica, clock
        self.shipped: list[FileInfo] = []

    def put(self, header: Header, pages: dict[int, bytes], *, legacy: bool = False) -> None:
        low, high, now = header.min_txid, header.max_txid, self._clock.now_ms()
        batch = PageSet(header.page_size, header.commit, dict(pages))
        while True:
            try:
                self.shipped += self._replica.put(batch, low, high, timestamp_ms=now, epoch=7)
                break
            except (UnavailableError, OutcomeUnknownError):
                continue


class Play:
    """One object in one bucket."""

    def __init__(
        self, tmp: Path, bucket: Bucket, clock: ManualClock, draw: random.Random, directory: bool
    ) -> None:
        self.clock, self.draw, self.tmp = clock, draw, tmp
        self.replica = Replica(bucket, Layout("objects/one", directory), RecentFiles())
        self.shipping = Shipping(tmp / "unused", self.replica, clock)
        page_size = draw.choice([512, 4096])
        self.source = Source(tmp / "live.db", self.shipping, page_size, draw.randrange(3))
        self.states: dict[int, State] = {}
        self.needed: Collection[int] = ()
        self.chain = Chain()
        self._seen = 0
        self._remember()

    def close(self) -> None:
        self.source.close()

    # --- what happens -------------------------------------------------------------------------

    def write(self) -> None:
        """Time passes, then something is committed and shipped."""
        steps = [0.2, 3, 10, 40, 400, 3_000]
        self.clock.advance(self.draw.choices(steps, [30, 20, 10, 6, 3, 1])[0])
        for _ in range(self.draw.randint(1, 3)):
            work(self.source.db, self.draw, 3_000)
        self.source.ship()
        self._remember()

    def _remember(self) -> None:
        txid = self.source.txid
        if txid not in self.states:
            image = self.source.checkpointed()
            self.states[txid] = State(txid, self.clock.now_ms(), image)

    def compact(self) -> None:
        """All that is due; the chain is known from what went by, or from a look."""
        until_ms = self.clock.now_ms() - GRACE_MS
        for file in self.shipping.shipped[self._seen :]:
            self.chain.add(file)
        self._seen = len(self.shipping.shipped)
        if self.chain.base is None:
            self.chain = look(self.replica)
        compactor = Compactor(self.tmp, memory_bytes=self.draw.choice([1, 20_000, 1 << 20]))
        for level in MERGED_LEVELS:
            compactor.compact(self.replica, self.chain, level, until_ms)
        compactor.snapshot(self.replica, self.chain, until_ms)

    def sweep(self) -> None:
        """Retention."""
        sweep(self.replica, self.clock.now_ms(), SCALED, lambda: self.needed)

    def crash(self) -> None:
        """The process forgets all; sometimes it goes on with an old belief, as a second one would
        that compacts the same object."""
        self.chain = Chain()

    # --- what must hold -----------------------------------------------------------------------

    def files(self) -> list[FileInfo]:
        """All, with the times of their headers."""
        return [
            replace(each, timestamp_ms=self.replica.header(each).timestamp_ms)
            for each in self.replica.files()
        ]

    def check(self, samples: int = 3) -> None:
        """The promises of retention, on the newest state and on some others."""
        files, now_ms = self.files(), self.clock.now_ms()
        last = max(self.states)
        head = self.replica.head()
        assert head is not None and head.txid == last, "the newest raw file is gone"
        self._restores(files, last)
        young = [s for s in self.states.values() if s.at_ms > now_ms - SCALED.commits_ms]
        for state in self.draw.sample(young, min(samples, len(young))):
            self._restores(files, state.txid)
        for txid in self.needed:
            self._restores(files, txid)
        oldest = min(state.at_ms for state in self.states.values())
        for _ in range(samples):
            self._restores_at(
                files, self.draw.randint(max(oldest, now_ms - SCALED.history_ms), now_ms)
            )

    def _restores(self, files: list[FileInfo], txid: int) -> None:
        out = self.tmp / "restored.db"
        with out.open("w+b") as file:
            image = self.replica.write_image(file, txid, files=files)
        assert image.txid == txid
        assert out.read_bytes() == self.states[txid].image, f"TXID {txid}"

    def _restores_at(self, files: list[FileInfo], at_ms: int) -> None:
        """A state of the moment, or one that is older by no more than the granularity."""
        fine = at_ms > self.clock.now_ms() - SCALED.fine_ms
        oldest = self._oldest_allowed(at_ms, level=1 if fine else 2)
        found = restore_plan(files, before_ms=at_ms + 1)[-1].max_txid
        assert self.states[found].at_ms <= at_ms
        assert found >= oldest, f"{at_ms}: {found} instead of at least {oldest}"
        self._restores(files, found)

    def _oldest_allowed(self, at_ms: int, level: int) -> int:
        ended = [
            state.txid
            for state in self.states.values()
            if span_end_ms(FileInfo(0, 1, 1, 0, state.at_ms), level) <= at_ms
        ]
        return max(ended, default=1)


def play(each: Play, steps: int, fails: tuple[type[Exception], ...] = (DosqlError,)) -> None:
    """So many random steps; a step of compaction may fail with a fault of the bucket."""
    for step in range(steps):
        kind = each.draw.choices(["write", "compact", "sweep", "crash"], [40, 12, 4, 2])[0]
        try:
            getattr(each, kind)()
        except fails:
            if kind == "write":
                raise
            each.crash()
        if step % 10 == 9:
            each.check()
