"""Putting a database file where an object's is, so that a crash leaves the one or the other."""

from __future__ import annotations

from pathlib import Path

from dosql.log.disk import Disk
from dosql.log.node_log import NodeLog
from dosql.log.position import position_path, write_position
from dosql.log.records import ObjectKey
from dosql.log.redo import damaged_path, remove_wal


def place_database(
    disk: Disk, log: NodeLog, key: ObjectKey, source: Path, path: Path, txid: int
) -> None:
    """Make ``source``, which holds ``txid``, the object's file at ``path``; durable when this
    returns, and nothing that the log has so far counts for it.

    A crash on the way leaves an object that is marked as damaged, which is restored again: without
    the mark, a redo could mix the old life's commits, which the log may still hold, into the new
    file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for durable in (source, damaged_path(path)):
        file = disk.open(durable, create=durable != source)
        try:
            file.sync()
        finally:
            file.close()
    disk.sync_dir(path.parent)
    disk.unlink(position_path(path))
    disk.sync_dir(path.parent)
    remove_wal(disk, path)
    disk.rename(source, path)
    disk.sync_dir(path.parent)
    write_position(disk, path, txid, since=log.next_sequence())
    disk.unlink(damaged_path(path))
    disk.sync_dir(path.parent)
    log.checkpointed(key, 1 << 62, log.position())
