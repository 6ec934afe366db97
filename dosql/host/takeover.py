"""Takeover: an object's state is fetched from the bucket, and its former writer is locked out."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dosql.clock import Clock
from dosql.errors import UnavailableError
from dosql.replica.history import check_database
from dosql.replica.plan import FileInfo
from dosql.replica.replica import Fenced, Head, Replica

_FENCE_ATTEMPTS = 100
"""To take an object over from a server that writes to it at this moment."""


class Takeover:
    """By the writer of this ``epoch``. Blocking: for file threads."""

    def __init__(self, clock: Clock, epoch: int) -> None:
        self._clock = clock
        self._epoch = epoch

    def fetch(
        self, replica: Replica, head: Head, files: list[FileInfo] | None, target: Path, *, own: bool
    ) -> int:
        """Write the newest state to ``target``, behind which only this epoch writes from now on;
        its TXID. ``own``: ``head``, the newest file, was written by this data directory.

        Raises:
            UnavailableError: ``object_moved``: the other side is faster, again and again.
        """
        state = _write(replica, target, files=files)
        seen = head.txid == state.txid
        if own and seen and not head.is_open:
            return state.txid
        try:
            if not seen:
                raise Fenced
            return self._fence(replica, head).txid
        except Fenced:  # somebody writes: end that first, then fetch what came of it
            state = self._fence_writer(replica, state)
            _write(replica, target, state.txid)
            return state.txid

    def _fence(self, replica: Replica, head: Head) -> Head:
        return replica.fence(head, timestamp_ms=self._clock.now_ms(), epoch=self._epoch)

    def _fence_writer(self, replica: Replica, head: Head) -> Head:
        """Fence a writer that is at work, which may be faster now and then."""
        for _ in range(_FENCE_ATTEMPTS):
            head = replica.head(near=head.txid) or head
            with contextlib.suppress(Fenced):
                return self._fence(replica, head)
        raise moved("Another server writes to the object all the time.")


def moved(message: str) -> UnavailableError:
    """What is not ours any more cannot be served here."""
    return UnavailableError(message, code="object_moved", retry_after_s=1)


def _write(
    replica: Replica,
    target: Path,
    txid: int | None = None,
    files: list[FileInfo] | None = None,
) -> Head:
    """The database as of ``txid``, or the newest; its state as a head of nobody's."""
    with target.open("w+b") as out:
        image = replica.write_image(out, txid, files=files)
    check_database(target)
    return Head(image.txid, 0, image.page_size, image.page_count, image.timestamp_ms)
