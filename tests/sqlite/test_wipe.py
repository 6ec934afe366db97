"""`Database.wipe`: everything gone at once, in one commit that the -wal shows like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from dosql.clock import SystemClock
from dosql.errors import ConflictError, OverloadedError, SqlError
from dosql.sqlite.database import Database, DatabaseLimits
from dosql.sqlite.wal import WalReader
from dosql.testing.memory import MemoryDatabase

Open = Callable[..., Database]


def fill(db: Database) -> None:
    """One of everything that a schema may hold."""
    db.exec(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, body TEXT);"
        "CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent);"
        "CREATE INDEX by_parent ON child(parent);"
        "CREATE VIEW both AS SELECT * FROM parent JOIN child;"
        "CREATE TRIGGER no_delete BEFORE DELETE ON parent BEGIN SELECT RAISE(ABORT, 'no'); END;"
        "CREATE VIRTUAL TABLE words USING fts5(body);"
        "INSERT INTO parent VALUES (1, hex(zeroblob(50000)));"
        "INSERT INTO child VALUES (1, 1);"
        "INSERT INTO words VALUES ('some words');"
        "PRAGMA user_version = 7"
    )
    db.internal_run("CREATE TABLE _dosql_kv (key, value)")


def assert_empty(db: Database) -> None:
    assert db.internal_query("SELECT * FROM sqlite_schema") == []
    assert db.internal_query("PRAGMA user_version") == [(0,)]
    assert db.size_bytes == db.used_bytes == db.page_size
    assert db.query("PRAGMA integrity_check").rows == [("ok",)]


def test_nothing_is_left_and_the_database_is_as_usable_as_a_new_one(
    db: Database, open_database: Open
) -> None:
    fill(db)
    db.wipe()
    assert_empty(db)
    fill(db)
    db.run("INSERT INTO child VALUES (2, 1)")
    assert db.query("SELECT count(*) FROM child").rows == [(2,)]
    db.checkpoint()
    db.wipe()
    db.checkpoint()
    db.close()
    assert_empty(open_database())


def test_it_is_one_commit_of_one_page(db: Database, tmp_path: Path) -> None:
    fill(db)
    before = db.wal_frames
    db.wipe()
    pages = WalReader(tmp_path / "tenant.db", db.page_size).read(before, db.wal_frames)
    assert pages.commit == 1
    assert list(pages.pages) == [1]
    assert (tmp_path / "tenant.db-wal").stat().st_size > 0


def test_what_was_known_of_statements_is_forgotten(db: Database) -> None:
    fill(db)
    db.query("SELECT id FROM parent")
    db.run("UPDATE parent SET body = ''")
    prepared = db.prepare("SELECT * FROM parent")
    db.wipe()
    for call in (
        lambda: db.query("SELECT id FROM parent"),
        lambda: db.run("UPDATE parent SET body = ''"),
        prepared.all,
    ):
        with pytest.raises(SqlError, match="no such table: parent"):
            call()
    db.exec("CREATE TABLE parent (other)")
    assert db.query("SELECT * FROM parent").columns == ("other",)


def test_a_transaction_refuses_it(db: Database) -> None:
    fill(db)
    db.begin()
    with pytest.raises(ConflictError) as caught:
        db.wipe()
    assert caught.value.code == "transaction_open"
    db.commit()
    assert db.query("SELECT count(*) FROM child").rows == [(1,)]


def test_a_row_that_is_being_read_stands_in_the_way_and_nothing_is_lost(db: Database) -> None:
    fill(db)
    rows = db.iterate("SELECT id FROM child UNION ALL SELECT id FROM child")
    next(rows)
    with pytest.raises(OverloadedError) as caught:
        db.wipe()
    assert caught.value.code == "object_busy"
    with pytest.raises(ConflictError):
        next(rows)
    assert db.query("SELECT count(*) FROM child").rows == [(1,)]
    db.wipe()
    assert_empty(db)


def test_the_sandbox_and_the_limits_hold_afterwards(open_database: Open) -> None:
    db = open_database(limits=DatabaseLimits(database_bytes=1024 * 1024))
    fill(db)
    db.wipe()
    connection = db._connection
    assert connection.limit(apsw.SQLITE_LIMIT_ATTACHED) == 0
    assert connection.config(apsw.SQLITE_DBCONFIG_RESET_DATABASE, -1) == 0
    assert connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    for name, value in (
        ("journal_mode", "wal"),
        ("foreign_keys", 1),
        ("max_page_count", 1024 * 1024 // db.page_size),
    ):
        assert db.internal_query(f"PRAGMA {name}") == [(value,)]


@pytest.mark.parametrize("page_size", [512, 65536])
def test_an_imported_file_keeps_its_page_size(
    open_database: Open, tmp_path: Path, page_size: int
) -> None:
    foreign = apsw.Connection(str(tmp_path / "tenant.db"))
    foreign.pragma("page_size", page_size)
    foreign.pragma("encoding", "UTF-16le")
    foreign.execute("CREATE TABLE t (a); INSERT INTO t VALUES ('é')")
    foreign.close()
    db = open_database()
    db.wipe()
    assert_empty(db)
    assert db.page_size == page_size == db.internal_query("PRAGMA page_size")[0][0]
    db.exec("CREATE TABLE t (a); INSERT INTO t VALUES ('é')")
    assert db.query("SELECT a FROM t").rows == [("é",)]


def test_a_database_in_memory_is_wiped_too() -> None:
    db = MemoryDatabase(b"", clock=SystemClock())
    fill(db)
    commits = db.wal_frames
    db.wipe()
    assert db.wal_frames > commits
    assert_empty(db)
    again = MemoryDatabase(db.content, clock=SystemClock())
    assert_empty(again)
    again.close()
    db.close()
