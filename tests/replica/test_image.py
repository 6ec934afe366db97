"""Database files out of LTX files."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from msgspec.structs import replace

from dosql.errors import CorruptError
from dosql.pages import lock_page
from dosql.replica.image import Image, write_image
from dosql.replica.ltx import CHECKSUM_BIT, Decoder, Encoder, database_checksum
from tests.replica.ltx_files import file, header, opened, page


def image(*files: bytes) -> tuple[Image, list[int]]:
    """The state, and the mark of every page."""
    out = io.BytesIO()
    state = write_image(opened(*files), out)
    assert len(out.getvalue()) == state.size_bytes
    return state, [
        struct.unpack_from(">Q", out.getvalue(), at)[0] for at in range(0, state.size_bytes, 512)
    ]


FIRST = file(1, 1, 4, {1: 1, 2: 2, 3: 3, 4: 4})


def test_files_in_a_row_become_the_last_state() -> None:
    state, marks = image(FIRST, file(2, 2, 6, {2: 22, 5: 5, 6: 6}), file(3, 5, 6, {1: 11, 6: 66}))
    assert state == Image(txid=5, timestamp_ms=5000, page_size=512, page_count=6)
    assert marks == [11, 22, 3, 4, 5, 66]


def test_a_database_that_shrank_is_cut() -> None:
    assert image(FIRST, file(2, 2, 2, {1: 9}))[1] == [9, 2]
    assert image(FIRST, file(2, 2, 2, {1: 9}), file(3, 3, 3, {3: 7}))[1] == [9, 2, 7]


def test_a_deleted_database_is_empty() -> None:
    assert image(FIRST, file(2, 2, 0, {}))[0].page_count == 0


def test_a_file_without_pages_moves_the_transaction_on() -> None:
    """As the fences of a takeover are."""
    state, marks = image(FIRST, file(2, 2, 4, {}))
    assert (state.txid, marks) == (2, [1, 2, 3, 4])


def test_pages_that_a_file_should_have_brought_are_missed() -> None:
    """Without the check they would be zeros; or, after a shrink, an old state's."""
    for files in (
        [FIRST, file(2, 2, 6, {5: 5})],
        [FIRST, file(2, 2, 2, {1: 9}), file(3, 3, 4, {4: 4})],
    ):
        with pytest.raises(CorruptError, match="missing") as raised:
            image(*files)
        assert raised.value.code == "replica_corrupt"


@pytest.mark.parametrize(
    "files",
    [[file(2, 2, 4, {1: 1})], [FIRST, file(3, 3, 4, {1: 1})], [FIRST, FIRST]],
    ids=["no start", "gap", "twice"],
)
def test_files_that_do_not_follow_each_other_are_refused(files: list[bytes]) -> None:
    with pytest.raises(CorruptError) as raised:
        image(*files)
    assert raised.value.code == "replica_gap"


def test_a_damaged_file_is_refused() -> None:
    with pytest.raises(CorruptError) as raised:
        image(FIRST[:-1] + bytes([FIRST[-1] ^ 1]))
    assert raised.value.code == "replica_corrupt"


def test_no_files_are_no_database() -> None:
    with pytest.raises(ValueError, match="no file"):
        image()


def test_an_image_is_taken_further(tmp_path: Path) -> None:
    path = tmp_path / "tenant.db"
    with path.open("w+b") as out:
        state = write_image(opened(FIRST), out)
    with path.open("r+b") as out:
        assert write_image([], out, base=state) == state
        state = write_image(opened(file(2, 3, 3, {3: 33})), out, base=state)
    assert (state.txid, path.read_bytes()) == (3, page(1) + page(2) + page(33))
    with path.open("r+b") as out:
        state = write_image(opened(file(1, 9, 1, {1: 99})), out, base=state)
    assert (state.txid, path.read_bytes()) == (9, page(99))
    with path.open("r+b") as out, pytest.raises(CorruptError):
        write_image(opened(file(11, 11, 1, {1: 1})), out, base=state)


def test_the_lock_page_is_zeros_whatever_stood_there(tmp_path: Path) -> None:
    lock, size = lock_page(65536), 65536
    base = Image(txid=1, timestamp_ms=1, page_size=size, page_count=lock - 1)
    spool = io.BytesIO()
    encoder = Encoder(header(2, 2, lock + 1, page_size=size), spool.write)
    encoder.page(lock + 1, b"z" * size)
    encoder.finish()
    spool.seek(0)
    with (tmp_path / "sparse.db").open("w+b") as out:
        out.seek((lock - 1) * size)
        out.write(b"rubbish")
        state = write_image([Decoder(spool.read)], out, base=base)
        out.seek((lock - 1) * size)
        assert out.read(2 * size) == bytes(size) + b"z" * size
        assert out.seek(0, io.SEEK_END) == state.size_bytes == (lock + 1) * size


@pytest.mark.parametrize("wrong", [0, 1], ids=["right", "wrong"])
def test_the_checksum_of_the_database_is_verified_where_one_is_kept(wrong: int) -> None:
    total = database_checksum([(1, page(1)), (2, page(7)), (3, page(3)), (4, page(4))])
    parts: list[bytes] = []
    head = replace(header(2, 2, 4), no_checksum=False, pre_apply_checksum=CHECKSUM_BIT)
    encoder = Encoder(head, parts.append)
    encoder.page(2, page(7))
    encoder.finish(total ^ wrong)
    if wrong:
        with pytest.raises(CorruptError, match="checksum of the database"):
            image(FIRST, b"".join(parts))
    else:
        assert image(FIRST, b"".join(parts))[1] == [1, 7, 3, 4]
