"""The position sidecar survives torn writes, and says so when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from dosql.errors import CorruptError
from dosql.log.disk import RealDisk
from dosql.log.position import Position, position_path, read_position, write_position

DISK = RealDisk()


def test_a_file_that_was_never_synced_holds_nothing(tmp_path: Path) -> None:
    assert read_position(DISK, tmp_path / "a.sqlite") == Position()


def test_the_newest_position_is_read(tmp_path: Path) -> None:
    for txid in (1, 5, 6, 90):
        write_position(DISK, tmp_path / "a.sqlite", txid)
        assert read_position(DISK, tmp_path / "a.sqlite").txid == txid


def test_every_torn_write_leaves_the_position_before_it(tmp_path: Path) -> None:
    database = tmp_path / "a.sqlite"
    write_position(DISK, database, 1)
    write_position(DISK, database, 2)
    before = position_path(database).read_bytes()
    write_position(DISK, database, 3)
    after = position_path(database).read_bytes()
    changed = [at for at in range(len(after)) if after[at] != before[at : at + 1].ljust(1)[0]]
    for cut in range(changed[0], changed[-1] + 1):
        position_path(database).write_bytes(after[:cut] + before[cut:])
        assert read_position(DISK, database).txid in (2, 3), f"{cut=}"


def test_two_damaged_slots_are_refused(tmp_path: Path) -> None:
    database = tmp_path / "a.sqlite"
    write_position(DISK, database, 1)
    write_position(DISK, database, 2)
    content = bytearray(position_path(database).read_bytes())
    content[10] ^= 1
    content[74] ^= 1
    position_path(database).write_bytes(content)
    with pytest.raises(CorruptError):
        read_position(DISK, database)
