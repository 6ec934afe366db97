"""Numbered files, applied once, whole, in order, and never changed afterwards."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dosql.errors import BudgetError, ConstraintError, OverloadedError, QuotaError
from dosql.sqlite.database import Database, DatabaseLimits
from dosql.sqlite.migrations import (
    Migration,
    MigrationError,
    apply_migrations,
    load_migrations,
    pending_migrations,
)

Open = Callable[..., Database]
SHIPPED = Path(__file__).parents[2] / "migrations"
NOW = 1_700_000_000_000


def migration(version: int, sql: str, name: str = "step") -> Migration:
    checksum = hashlib.sha256(sql.encode()).hexdigest()
    return Migration(version, f"{version:03}_{name}", sql, checksum)


STEPS = (
    migration(1, "CREATE TABLE a (x); INSERT INTO a VALUES (1);"),
    migration(2, "CREATE TABLE b (x);"),
    migration(3, "ALTER TABLE a ADD COLUMN y;"),
)


def tables(db: Database) -> list[Any]:
    rows = db.query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").rows
    return [row[0] for row in rows if row[0] != "_dosql_migrations"]


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "002_second.sql").write_text("SELECT 2;")
    (tmp_path / "001_first.sql").write_text("SELECT 1;")
    (tmp_path / "README.md").write_text("not a migration")
    first, second = load_migrations(tmp_path)
    assert (first.version, first.name, first.sql) == (1, "001_first", "SELECT 1;")
    assert second.version == 2
    assert first.checksum == hashlib.sha256(b"SELECT 1;").hexdigest()


def test_an_empty_folder_has_no_migrations(tmp_path: Path) -> None:
    assert load_migrations(tmp_path) == ()


def test_numbers_beyond_999_sort_as_numbers(tmp_path: Path) -> None:
    for number in range(1, 1002):
        (tmp_path / f"{number:03}_x.sql").write_text("")
    assert [found.version for found in load_migrations(tmp_path)] == list(range(1, 1002))


def test_line_ends_do_not_change_the_checksum(tmp_path: Path) -> None:
    """A checkout on Windows must not look like a changed file."""
    (tmp_path / "001_x.sql").write_bytes(b"SELECT 1;\nSELECT 2;\n")
    [unix] = load_migrations(tmp_path)
    (tmp_path / "001_x.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    [windows] = load_migrations(tmp_path)
    assert unix == windows


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["002_x.sql"], "Migration 1 is missing"),
        (["001_x.sql", "003_x.sql"], "Migration 2 is missing before 003_x"),
        (["001_x.sql", "001_y.sql"], "two migrations 1"),
        (["001_x.sql", "0001_y.sql"], "two migrations 1"),
        (["000_x.sql"], "000_x.sql"),
        (["1_x.sql"], "1_x.sql"),
        (["001.sql"], "001.sql"),
        (["001-x.sql"], "001-x.sql"),
        (["001_X.sql"], "001_X.sql"),
        (["notes.sql"], "notes.sql"),
        (["\u0661\u0661\u0661_x.sql"], "_x.sql"),
    ],
)
def test_a_folder_with_gaps_doubles_or_bad_names_is_refused(
    tmp_path: Path, names: list[str], told: str
) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=told) as caught:
        load_migrations(tmp_path)
    assert caught.value.code == "migration_invalid"


def test_a_missing_folder_and_text_that_is_not_utf8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError):
        load_migrations(tmp_path / "nowhere")
    (tmp_path / "001_x.sql").write_bytes(b"SELECT '\xff';")
    with pytest.raises(MigrationError, match="UTF-8"):
        load_migrations(tmp_path)


def test_pending_migrations_are_applied_once(db: Database) -> None:
    assert pending_migrations(db, STEPS) == (0, list(STEPS))
    assert apply_migrations(db, STEPS[:2], now_ms=NOW) == list(STEPS[:2])
    assert pending_migrations(db, STEPS) == (2, [STEPS[2]])
    assert apply_migrations(db, STEPS, now_ms=NOW + 1) == [STEPS[2]]
    assert apply_migrations(db, STEPS, now_ms=NOW + 2) == []
    assert pending_migrations(db, STEPS) == (3, [])
    assert tables(db) == ["a", "b"]
    assert db.internal_query("SELECT version, name, applied_at_ms FROM _dosql_migrations") == [
        (1, "001_step", NOW),
        (2, "002_step", NOW),
        (3, "003_step", NOW + 1),
    ]


def test_looking_at_what_is_pending_writes_nothing(db: Database) -> None:
    pending_migrations(db, STEPS)
    assert db.wal_frames == 0


def test_what_was_applied_is_out_of_a_tenants_reach(db: Database) -> None:
    apply_migrations(db, STEPS, now_ms=NOW)
    with pytest.raises(Exception, match="reserved"):
        db.run("DELETE FROM _dosql_migrations")


@pytest.mark.parametrize(
    "changed",
    [
        migration(2, "CREATE TABLE b (x, y);"),
        migration(2, "CREATE TABLE b (x);", name="renamed"),
        migration(2, "CREATE TABLE b (x); "),
    ],
)
def test_an_applied_file_that_changed_is_drift(db: Database, changed: Migration) -> None:
    apply_migrations(db, STEPS[:2], now_ms=NOW)
    for call in (
        lambda: pending_migrations(db, (STEPS[0], changed, STEPS[2])),
        lambda: apply_migrations(db, (STEPS[0], changed, STEPS[2]), now_ms=NOW),
    ):
        with pytest.raises(MigrationError, match=changed.name) as caught:
            call()
        assert caught.value.code == "migration_drift"
    assert pending_migrations(db, STEPS) == (2, [STEPS[2]])


def test_a_database_ahead_of_the_files_is_left_alone(db: Database) -> None:
    apply_migrations(db, STEPS, now_ms=NOW)
    with pytest.raises(MigrationError, match="003_step") as caught:
        apply_migrations(db, STEPS[:2], now_ms=NOW)
    assert caught.value.code == "migration_unknown"


@pytest.mark.parametrize(
    ("sql", "told", "sqlite_code"),
    [
        ("CREATE TABLE c (x); nonsense;", "syntax error", "SQLITE_ERROR"),
        ("CREATE TABLE c (x); INSERT INTO a (nope) VALUES (1);", "no column", "SQLITE_ERROR"),
        (
            "CREATE TABLE c (x UNIQUE); INSERT INTO c VALUES (1), (1);",
            "UNIQUE constraint failed",
            "SQLITE_CONSTRAINT_UNIQUE",
        ),
        ("CREATE TABLE c (x); COMMIT;", "leave BEGIN and COMMIT out", "SQLITE_AUTH"),
        ("BEGIN; CREATE TABLE c (x); COMMIT;", "leave BEGIN and COMMIT out", "SQLITE_AUTH"),
        ("CREATE TABLE c (x); PRAGMA foreign_keys = OFF;", "foreign_keys", "SQLITE_AUTH"),
        ("CREATE TABLE c (x); DROP TABLE _dosql_migrations;", "reserved", "SQLITE_AUTH"),
        ("CREATE TABLE c (x); ALTER TABLE c RENAME TO _dosql_c;", "reserved", None),
        ("CREATE TABLE c (x\0);", "NUL", None),
        (
            "CREATE TABLE c (x); INSERT INTO a VALUES (1);"
            "CREATE UNIQUE INDEX u ON a (x); INSERT OR ROLLBACK INTO a VALUES (1);"
            "CREATE TABLE stray (x);",
            "UNIQUE constraint failed",
            "SQLITE_CONSTRAINT_UNIQUE",
        ),
    ],
)
def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(
    db: Database, sql: str, told: str, sqlite_code: str | None
) -> None:
    steps = (STEPS[0], STEPS[1], migration(3, sql), migration(4, "CREATE TABLE d (x);"))
    for _ in range(2):
        with pytest.raises(MigrationError, match=told) as caught:
            apply_migrations(db, steps, now_ms=NOW)
        assert caught.value.code == "migration_failed"
        assert caught.value.message.startswith("003_step.sql failed: ")
        assert caught.value.sqlite_code == sqlite_code
        assert tables(db) == ["a", "b"]
        assert not db.in_transaction
        assert pending_migrations(db, steps)[0] == 2
    mended = (*steps[:2], migration(3, "CREATE TABLE c (x);"), steps[3])
    apply_migrations(db, mended, now_ms=NOW)
    assert tables(db) == ["a", "b", "c", "d"]


def test_a_table_that_others_refer_to_can_be_rebuilt_in_one_file(db: Database) -> None:
    """By inserting the rows again: a rename alone would leave the references counted as broken."""
    db.exec("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id));")
    db.exec("INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);")
    rebuild = migration(
        1,
        "PRAGMA defer_foreign_keys = ON; CREATE TABLE old AS SELECT * FROM p; DROP TABLE p;"
        "CREATE TABLE p (id INTEGER PRIMARY KEY, more); INSERT INTO p SELECT id, 0 FROM old;"
        "DROP TABLE old;",
    )
    apply_migrations(db, [rebuild], now_ms=NOW)
    assert db.query("SELECT * FROM p JOIN c ON c.p = p.id").rows == [(1, 0, 1)]


def test_a_deadline_or_a_full_database_is_not_the_files_fault(
    open_database: Open, clock: Any
) -> None:
    """The caller may try again with more time, or more room."""
    db = open_database(limits=DatabaseLimits(database_bytes=20 * 4096))
    big = (migration(1, "CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(200000));"),)
    with pytest.raises(QuotaError):
        apply_migrations(db, big, now_ms=NOW)
    long = (
        migration(
            1,
            "CREATE TABLE a AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
            " SELECT count(*) FROM n;",
        ),
    )
    db.set_deadline(5)
    clock.step = 1
    with pytest.raises(BudgetError):
        apply_migrations(db, long, now_ms=NOW)
    db.set_deadline(None)
    assert tables(db) == []
    assert apply_migrations(db, STEPS, now_ms=NOW) == list(STEPS)


def test_nobody_else_can_migrate_the_same_file_at_the_same_time(open_database: Open) -> None:
    """The file has one connection; the second finds all done once it gets in."""
    first = open_database()
    apply_migrations(first, STEPS[:1], now_ms=NOW)
    with pytest.raises(OverloadedError):
        open_database()
    apply_migrations(first, STEPS, now_ms=NOW)
    first.close()
    assert pending_migrations(open_database(), STEPS) == (3, [])


def test_migrations_join_the_transaction_that_is_open(db: Database) -> None:
    db.begin()
    apply_migrations(db, STEPS, now_ms=NOW)
    db.rollback()
    assert tables(db) == []
    assert pending_migrations(db, STEPS)[0] == 0


# --- the files that ship with the server ------------------------------------------------------


@pytest.fixture
def shipped(db: Database) -> Database:
    apply_migrations(db, load_migrations(SHIPPED), now_ms=NOW)
    return db


def test_the_shipped_files_make_the_documented_tables(shipped: Database) -> None:
    assert tables(shipped) == ["posts", "rate_limits", "sessions", "sqlite_sequence", "users"]
    assert shipped.query("PRAGMA foreign_key_check").rows == []
    strict = shipped.query(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict"
        " AND name NOT LIKE 'sqlite_%'"
    )
    assert strict.rows == []


def test_times_are_whole_milliseconds_of_now(shipped: Database) -> None:
    shipped.run("INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com')")
    [(created, updated, now)] = shipped.query(
        "SELECT created_at, updated_at, unixepoch('subsec') * 1000 FROM users"
    ).rows
    assert isinstance(created, int)
    assert created == updated
    assert isinstance(now, float)
    assert abs(now - created) < 60_000


def test_an_email_is_unique_whatever_its_case(shipped: Database) -> None:
    shipped.run("INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com')")
    with pytest.raises(ConstraintError) as caught:
        shipped.run("INSERT INTO users (name, email) VALUES ('Eve', 'ADA@example.com')")
    assert caught.value.code == "constraint_unique"
    assert shipped.query_one("SELECT name FROM users WHERE email = 'Ada@Example.com'").rows


def test_the_id_of_a_deleted_user_is_not_given_again(shipped: Database) -> None:
    insert = "INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com')"
    assert shipped.run(insert).last_insert_rowid == 1
    shipped.run("DELETE FROM users")
    assert shipped.run(insert).last_insert_rowid == 2


def test_deleting_a_user_deletes_what_is_theirs(shipped: Database) -> None:
    shipped.run("INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com')")
    shipped.run("INSERT INTO posts (user_id, title, content) VALUES (1, 'a', 'b')")
    shipped.internal_run(
        "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES (randomblob(32), 1, 2)"
    )
    shipped.run("DELETE FROM users")
    for table in ("posts", "sessions"):
        assert shipped.internal_query(f"SELECT count(*) FROM {table}") == [(0,)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO users (name, email, role) VALUES ('a', 'a@b', 'root')",
        "INSERT INTO users (name, email) VALUES ('', 'a@b')",
        "INSERT INTO users (email) VALUES ('a@b')",
        "INSERT INTO users (name, email, created_at) VALUES ('a', 'a@b', 'today')",
        "INSERT INTO posts (user_id, title, content) VALUES (9, 'a', 'b')",
        "INSERT INTO posts (user_id, title, content, published) VALUES (NULL, 'a', 'b', 2)",
        "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES (x'00', 1, 2)",
        "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES ('token', 1, 2)",
        "INSERT INTO rate_limits (key) VALUES (x'00')",
    ],
)
def test_the_tables_refuse_what_makes_no_sense(shipped: Database, sql: str) -> None:
    with pytest.raises(ConstraintError):
        shipped.internal_run(sql)


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        ("SELECT * FROM users WHERE email = ?", "sqlite_autoindex_users_1"),
        ("SELECT * FROM posts WHERE user_id = ?", "idx_posts_user_id"),
        (
            "SELECT * FROM posts WHERE published = 1 ORDER BY created_at DESC",
            "idx_posts_published",
        ),
        ("SELECT * FROM sessions WHERE user_id = ?", "idx_sessions_user_id"),
        ("SELECT * FROM sessions WHERE token_hash = ?", "PRIMARY KEY"),
        ("DELETE FROM sessions WHERE expires_at < ?", "idx_sessions_expires_at"),
        ("DELETE FROM rate_limits WHERE tat < ?", "idx_rate_limits_tat"),
    ],
)
def test_the_usual_questions_use_an_index(shipped: Database, sql: str, index: str) -> None:
    params = [1] if "?" in sql else []
    plan = str(shipped.internal_query(f"EXPLAIN QUERY PLAN {sql}", params))
    assert index in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


def test_no_index_repeats_another(shipped: Database) -> None:
    rows = shipped.internal_query(
        "SELECT t.name, group_concat(c.name) FROM sqlite_schema t, pragma_index_list(t.name) i,"
        " pragma_index_info(i.name) c WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\'"
        " GROUP BY i.name"
    )
    assert len(rows) == len(set(rows))


def test_a_rate_limit_is_one_row_and_one_statement(shipped: Database) -> None:
    """A burst of 3, one more each second: the fourth at the same time is denied."""
    hit = (
        "INSERT INTO rate_limits (key, tat) VALUES (:k, :now + :t) ON CONFLICT (key) DO UPDATE"
        " SET tat = max(tat, :now) + :t WHERE max(tat, :now) + :t - :now <= :t * 3 RETURNING tat"
    )
    times = [0, 0, 0, 0, 999, 1000, 1000]
    allowed = [
        bool(shipped.internal_query(hit, {"k": b"k", "now": now, "t": 1000})) for now in times
    ]
    assert allowed == [True, True, True, False, False, True, False]
    assert shipped.internal_query("SELECT count(*) FROM rate_limits") == [(1,)]


def test_a_copy_of_the_shipped_folder_has_the_same_checksums(tmp_path: Path) -> None:
    copy = shutil.copytree(SHIPPED, tmp_path / "migrations")
    assert load_migrations(copy) == load_migrations(SHIPPED)
