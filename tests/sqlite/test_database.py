"""Opening, the -wal, checkpoints and closing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from dosql.errors import OverloadedError
from dosql.limits import PARSER_DEPTH_MAX, SQL_BYTES_MAX, VALUE_BYTES_MAX
from dosql.sqlite.database import Database, DatabaseLimits
from dosql.sqlite.wal import WalReader

Open = Callable[..., Database]


def test_the_connection_is_configured_as_promised(db: Database) -> None:
    def pragma(name: str) -> object:
        return db.internal_query(f"PRAGMA {name}")[0][0]

    assert pragma("journal_mode") == "wal"
    assert pragma("locking_mode") == "exclusive"
    assert pragma("synchronous") == 0
    assert pragma("foreign_keys") == 1
    assert pragma("trusted_schema") == 0
    assert pragma("wal_autocheckpoint") == 0
    assert pragma("cache_size") == -1024
    connection = db._connection
    assert connection.limit(apsw.SQLITE_LIMIT_LENGTH) == VALUE_BYTES_MAX
    assert connection.limit(apsw.SQLITE_LIMIT_SQL_LENGTH) == SQL_BYTES_MAX
    assert connection.limit(apsw.SQLITE_LIMIT_ATTACHED) == 0
    assert connection.limit(apsw.SQLITE_LIMIT_PARSER_DEPTH) == PARSER_DEPTH_MAX
    assert connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    assert connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1) == 1
    assert not connection.open_flags & apsw.SQLITE_OPEN_URI


def test_there_is_no_shared_memory_file(notes: Database, tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tenant.db", "tenant.db-wal"]


def test_a_name_is_never_a_uri(open_database: Open, tmp_path: Path) -> None:
    open_database("file:x?mode=memory").run("CREATE TABLE t (a)")
    assert (tmp_path / "file:x?mode=memory").exists()


def test_every_commit_adds_frames_and_a_rollback_none(notes: Database) -> None:
    frames = notes.wal_frames
    assert frames > 0
    notes.query("SELECT * FROM notes")
    notes.begin()
    notes.run("DELETE FROM notes")
    assert notes.wal_frames == frames
    notes.rollback()
    assert notes.wal_frames == frames
    notes.run("DELETE FROM notes")
    assert notes.wal_frames > frames


def test_a_checkpoint_moves_all_into_the_main_file(notes: Database, tmp_path: Path) -> None:
    notes.checkpoint()
    assert notes.wal_frames == 0
    assert (tmp_path / "tenant.db-wal").stat().st_size == 0
    notes.checkpoint()
    notes.run("DELETE FROM notes WHERE id = 1")
    assert notes.wal_frames == 2, "a page of the table and one of its index"


def test_a_checkpoint_inside_a_transaction_is_refused(notes: Database) -> None:
    notes.begin()
    notes.run("DELETE FROM notes")
    with pytest.raises(OverloadedError) as caught:
        notes.checkpoint()
    assert caught.value.code == "object_busy"
    notes.rollback()
    notes.checkpoint()


def test_closing_leaves_the_wal_and_opening_finds_it(
    notes: Database, open_database: Open, tmp_path: Path
) -> None:
    """Only a checkpoint may touch the main file: what reads the -wal decides when."""
    main = (tmp_path / "tenant.db").read_bytes()
    frames = notes.wal_frames
    notes.close()
    notes.close()
    assert (tmp_path / "tenant.db").read_bytes() == main
    again = open_database()
    assert again.wal_frames == frames
    assert again.query("SELECT count(*) FROM notes").rows == [(3,)]


def test_closing_drops_an_open_transaction(notes: Database, open_database: Open) -> None:
    notes.begin()
    notes.run("DELETE FROM notes")
    notes.close()
    assert open_database().query("SELECT count(*) FROM notes").rows == [(3,)]


def test_the_frames_that_are_counted_are_those_in_the_file(notes: Database, tmp_path: Path) -> None:
    reader = WalReader(tmp_path / "tenant.db", notes.page_size)
    pages = reader.read(0, notes.wal_frames)
    assert pages.commit * notes.page_size == notes.size_bytes


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_an_imported_file_keeps_its_page_size(
    open_database: Open, tmp_path: Path, page_size: int, mode: str
) -> None:
    foreign = apsw.Connection(str(tmp_path / "tenant.db"))
    foreign.pragma("page_size", page_size)
    foreign.pragma("journal_mode", mode)
    foreign.execute("CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000))")
    foreign.close()
    db = open_database(limits=DatabaseLimits(database_bytes=1024 * 1024))
    assert db.page_size == page_size
    assert db.query("SELECT length(a) FROM t").rows == [(100_000,)]
    assert db.size_bytes % page_size == 0
    assert db.size_bytes > 100_000
    assert db.internal_query("PRAGMA max_page_count") == [(1024 * 1024 // page_size,)]
    db.run("INSERT INTO t VALUES (zeroblob(100000))")
    db.checkpoint()
    assert (tmp_path / "tenant.db").stat().st_size == db.size_bytes


def test_size_counts_the_open_transaction(notes: Database) -> None:
    before = notes.size_bytes
    notes.begin()
    notes.run("INSERT INTO notes (body) VALUES (hex(zeroblob(50000)))")
    assert notes.size_bytes > before + 100_000 - notes.page_size
    notes.rollback()
    assert notes.size_bytes == before


def test_a_large_sort_spills_and_still_answers(db: Database) -> None:
    """The page cache is 1 MiB; the sorter holds ten times that."""
    sql = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000)"
        " SELECT x FROM (SELECT x, hex(zeroblob(250)) AS pad FROM n ORDER BY x * 7919 % 20011, pad)"
        " LIMIT 1"
    )
    assert len(db.query(sql).rows) == 1


def test_the_servers_statements_count_what_they_change(db: Database) -> None:
    assert db.internal_run("CREATE TABLE _dosql_x (a)") == 0
    assert db.internal_run("INSERT INTO _dosql_x VALUES (?), (?)", [1, 2]) == 2
    assert db.internal_run("UPDATE _dosql_x SET a = 0 WHERE a = 9") == 0
    assert db.internal_query("SELECT a FROM _dosql_x ORDER BY a") == [(1,), (2,)]
