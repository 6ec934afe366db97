"""Reading committed pages out of a ``-wal`` file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dosql.sqlite.wal import WalReader

PAGE = 512
Frame = tuple[int, int, bytes]
"""Page number, size of the database if it ends a commit, content."""


def content(pgno: int, version: int = 1) -> bytes:
    return bytes([pgno, version]) * (PAGE // 2)


def frame(pgno: int, commit: int = 0, version: int = 1) -> Frame:
    return pgno, commit, content(pgno, version)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Of four pages."""
    path = tmp_path / "tenant.db"
    path.write_bytes(b"".join(content(pgno, 0) for pgno in (1, 2, 3, 4)))
    return path


def write(database: Path, *frames: Frame) -> int:
    """Begin the -wal anew; the number of frames."""
    salts = b"salty!!!"
    data = bytes(16) + salts + bytes(8)
    for pgno, commit, page in frames:
        data += struct.pack(">II8s8x", pgno, commit, salts) + page
    database.with_name("tenant.db-wal").write_bytes(data)
    return len(frames)


def test_a_page_that_a_later_commit_grew_by_and_nobody_wrote_is_zeros(database: Path) -> None:
    """Without it, no chain of files could be restored."""
    reader = WalReader(database, PAGE)
    frames = [frame(1), frame(5, 5)]
    reader.read(0, write(database, *frames))
    frames += [frame(1, 0, 2), frame(6), frame(9, 9)]
    pages = reader.read(2, write(database, *frames))
    assert pages.commit == 9
    assert {pgno: page for pgno, page in pages.pages.items() if pgno in (7, 8)} == {
        7: bytes(PAGE),
        8: bytes(PAGE),
    }
    assert list(pages.pages) == [1, 6, 7, 8, 9]
    reader.close()


def test_pages_of_the_file_that_nobody_wrote_are_none_of_a_batch(database: Path) -> None:
    reader = WalReader(database, PAGE)
    pages = reader.read(0, write(database, frame(1), frame(6, 6)))
    assert list(pages.pages) == [1, 5, 6]
    reader.close()


def test_what_was_cut_off_and_grew_again_is_all_of_the_batch(database: Path) -> None:
    reader = WalReader(database, PAGE)
    pages = reader.read(0, write(database, frame(1, 2), frame(4, 4, 2)))
    assert list(pages.pages) == [1, 3, 4]
    assert pages.pages[4] == content(4, 2)
    reader.close()


def test_the_size_is_known_beyond_a_checkpoint(database: Path) -> None:
    """The -wal begins anew."""
    reader = WalReader(database, PAGE)
    reader.read(0, write(database, frame(5), frame(6, 6)))
    pages = reader.read(0, write(database, frame(1), frame(8, 8)))
    assert list(pages.pages) == [1, 7, 8]
    reader.close()
