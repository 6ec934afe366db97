"""The position sidecar: up to which batch an object's database file is durable.

``<database file>.pos`` holds two slots of 64 bytes, written in turn, so that a torn write leaves
the other one. Little-endian: magic 8, write number u64, txid u64, since u64, crc32 u32 of these.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec

from dosql.errors import CorruptError
from dosql.log.disk import Disk

_MAGIC = b"DOSQLPO2"
_SLOT = struct.Struct("<8sQQQ")
_CRC = struct.Struct("<I")
_SLOT_BYTES = 64


class Position(msgspec.Struct, frozen=True, order=True):
    """What a file durably holds."""

    txid: int = 0
    """Newest batch in it; 0 if it was never said to hold any."""
    since: int = 0
    """Groups of the commit log before this one are void for it: it was restored from elsewhere."""


def position_path(database: Path) -> Path:
    """Where the sidecar of a database file is."""
    return database.with_name(database.name + ".pos")


def read_position(disk: Disk, database: Path) -> Position:
    """Raises CorruptError: neither slot is intact."""
    try:
        file = disk.open(position_path(database))
    except FileNotFoundError:
        return Position()
    try:
        data = file.pread(2 * _SLOT_BYTES, 0)
    finally:
        file.close()
    if not data.strip(b"\0"):
        return Position()
    slots = _slots(data)
    if not slots:
        raise CorruptError("The object's position record is damaged.")
    return max(slots)[1]


def write_position(disk: Disk, database: Path, txid: int, *, since: int | None = None) -> None:
    """Say that the file durably holds everything up to ``txid``. Durable when this returns.

    The caller has synced the database file. ``since``: see `Position`; None leaves it.
    """
    path = position_path(database)
    file = disk.open(path, create=True)
    try:
        slots = _slots(file.pread(2 * _SLOT_BYTES, 0))
        if not slots:  # a position, once there, says that the names are durable too
            disk.sync_dir(path.parent)
            disk.sync_dir(path.parent.parent)
        newest, before = max(slots) if slots else (0, Position())
        content = _SLOT.pack(_MAGIC, newest + 1, txid, before.since if since is None else since)
        content += _CRC.pack(zlib.crc32(content))
        file.pwrite(content.ljust(_SLOT_BYTES, b"\0"), (newest + 1) % 2 * _SLOT_BYTES)
        file.sync()
    finally:
        file.close()


def _slots(data: bytes) -> list[tuple[int, Position]]:
    """The intact slots as (write number, position)."""
    found: list[tuple[int, Position]] = []
    for at in (0, _SLOT_BYTES):
        end = at + _SLOT.size
        if len(data) < end + _CRC.size or data[at : at + 8] != _MAGIC:
            continue
        if _CRC.unpack_from(data, end)[0] == zlib.crc32(data[at:end]):
            _, number, txid, since = _SLOT.unpack_from(data, at)
            found.append((number, Position(txid, since)))
    return found
