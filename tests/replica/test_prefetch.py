"""Files that are read ahead: what becomes of the threads that do it."""

from __future__ import annotations

import gc
import io
import threading

import pytest

from dosql.errors import CorruptError
from dosql.replica.layout import Layout
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import RAW_LEVEL
from dosql.replica.replica import Replica
from tests.replica.shipping import OURS, batch


def readers() -> list[str]:
    """Threads that read ahead."""
    return [each.name for each in threading.enumerate() if each.name.startswith("dosql-prefetch")]


def test_a_restore_that_a_damaged_file_ends_leaves_no_thread_to_the_garbage_collector() -> None:
    """Which may run in a thread that is just being started: that one would wait for itself."""
    bucket = MemoryBucket()
    replica = Replica(bucket, Layout("objects/x"))
    for txid in range(1, 6):
        one = batch(txid)
        replica.put(one.pages, txid, txid, timestamp_ms=one.timestamp_ms, epoch=OURS)
    damaged = replica.layout.key(RAW_LEVEL, 3, 3)
    content = bytearray(bucket.get(damaged))
    content[-1] ^= 1
    bucket.put(damaged, bytes(content))
    gc.disable()
    try:
        with pytest.raises(CorruptError) as raised:  # it keeps all frames, and what they refer to
            replica.write_image(io.BytesIO())
        assert readers() == []
        assert raised.value.code
    finally:
        gc.enable()
