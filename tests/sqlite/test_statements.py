"""One statement per text: what runs, what is refused, and that refused text runs nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from dosql.errors import DosqlError, ForbiddenError, InvalidRequestError, SqlError
from dosql.sqlite.database import Database, Rows, RunResult
from dosql.sqlite.statements import STATEMENTS_MAX, is_blank

COUNT = "SELECT count(*) FROM notes"


def count(db: Database) -> Any:
    return db.query(COUNT).rows[0][0]


def test_query_returns_columns_and_rows(notes: Database) -> None:
    assert notes.query("SELECT id, body FROM notes WHERE id < ?", [3]) == Rows(
        ("id", "body"), [(1, "one"), (2, "two")]
    )


def test_columns_are_known_without_a_single_row(notes: Database) -> None:
    for _ in range(2):
        assert notes.query("SELECT id AS a, body FROM notes WHERE 0") == Rows(("a", "body"), [])


def test_column_names_may_repeat(db: Database) -> None:
    assert db.query("SELECT 1 AS a, 2 AS a") == Rows(("a", "a"), [(1, 2)])


def test_query_one_stops_after_the_first_row(db: Database) -> None:
    """The second row would fail: it is never computed."""
    sql = "SELECT abs(column1) FROM (VALUES (1), (-9223372036854775808))"
    assert db.query_one(sql).rows == [(1,)]
    with pytest.raises(SqlError, match="integer overflow"):
        db.query(sql)


def test_query_one_leaves_no_read_open(notes: Database) -> None:
    notes.query_one("SELECT id FROM notes")
    notes.checkpoint()
    assert notes.wal_frames == 0


def test_query_one_of_nothing_is_no_row(notes: Database) -> None:
    assert notes.query_one("SELECT id FROM notes WHERE id = 99").rows == []


def test_query_runs_writes_that_return_rows(notes: Database) -> None:
    for expected in (4, 5):
        rows = notes.query("INSERT INTO notes (body) VALUES (hex(randomblob(8))) RETURNING id")
        assert rows == Rows(("id",), [(expected,)])


def test_query_one_of_a_write_still_writes_all_of_it(notes: Database) -> None:
    rows = notes.query_one("UPDATE notes SET body = body || '!' RETURNING id").rows
    assert rows == [(1,)]
    assert count(notes) == 3
    assert notes.query("SELECT count(*) FROM notes WHERE body LIKE '%!'").rows == [(3,)]


def test_run_counts_rows_and_tells_the_last_row_id(notes: Database) -> None:
    assert notes.run("INSERT INTO notes (body) VALUES (?)", ["four"]) == RunResult(1, 4)
    assert notes.run("UPDATE notes SET body = body || '!'") == RunResult(4, 0)
    assert notes.run("DELETE FROM notes WHERE id = 99") == RunResult(0, 0)
    assert notes.run("DELETE FROM notes") == RunResult(4, 0)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE other (a)",
        "CREATE TABLE IF NOT EXISTS notes (a)",
        "CREATE TABLE copied AS SELECT * FROM notes",
        "ALTER TABLE notes ADD COLUMN more",
        "CREATE INDEX notes_body ON notes (body)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON notes BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "CREATE VIRTUAL TABLE r USING rtree(id, low, high)",
        "DROP TABLE notes",
        "ANALYZE",
        "REINDEX",
    ],
)
def test_a_schema_change_counts_no_rows(notes: Database, sql: str) -> None:
    """Not even after a statement that counted some, and not in a transaction."""
    notes.run("UPDATE notes SET body = body || '?'")
    assert notes.run(sql) == RunResult(0, 0)


def test_run_drops_the_rows_of_returning(notes: Database) -> None:
    result = notes.run("INSERT INTO notes (body) VALUES ('a'), ('b') RETURNING id")
    assert result == RunResult(2, 5)


def test_changes_leave_out_what_triggers_do(notes: Database) -> None:
    notes.exec(
        "CREATE TABLE log (id); CREATE TRIGGER t AFTER UPDATE ON notes"
        " BEGIN INSERT INTO log VALUES (new.id); INSERT INTO log VALUES (new.id); END"
    )
    assert notes.run("UPDATE notes SET body = 'x' WHERE id = 1").changes == 1


@pytest.mark.parametrize(
    ("method", "sql", "code"),
    [
        ("query", "", "sql_empty"),
        ("query", "  \n\t;; ", "sql_empty"),
        ("query", "-- only a comment", "sql_empty"),
        ("query", "/* open", "sql_empty"),
        ("run", "", "sql_empty"),
        ("query", "SELECT 1; SELECT 2", "sql_multiple_statements"),
        ("query", "SELECT 1; DELETE FROM notes", "sql_multiple_statements"),
        ("query", "SELECT 1; nonsense", "sql_multiple_statements"),
        ("query", "SELECT 1; /* a */ DELETE FROM notes /* b */", "sql_multiple_statements"),
        ("query", "SELECT 1; -- a\nDELETE FROM notes", "sql_multiple_statements"),
        ("run", "DELETE FROM notes; SELECT 1", "sql_multiple_statements"),
        ("run", "DELETE FROM notes; DELETE FROM notes", "sql_multiple_statements"),
        ("query", "DELETE FROM notes", "statement_returns_no_rows"),
        ("query_one", "DELETE FROM notes", "statement_returns_no_rows"),
        ("query", "CREATE TABLE x (a)", "statement_returns_no_rows"),
        ("run", "SELECT 1", "statement_is_read_only"),
        ("run", "PRAGMA table_info(notes)", "statement_is_read_only"),
        ("run", "EXPLAIN DELETE FROM notes", "statement_is_read_only"),
        ("query", "SELECT 1\0; DELETE FROM notes", "invalid_encoding"),
        ("query", "SELECT '\ud800'", "invalid_encoding"),
        ("run", "DELETE FROM notes WHERE body = '\udfff'", "invalid_encoding"),
    ],
)
def test_a_text_that_is_not_one_fitting_statement_runs_nothing(
    notes: Database, method: str, sql: str, code: str
) -> None:
    for _ in range(2):  # the second time from a warm cache
        with pytest.raises(InvalidRequestError) as caught:
            getattr(notes, method)(sql)
        assert caught.value.code == code
    assert count(notes) == 3


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "SELECT 1; -- done",
        "SELECT 1; /* done; */ ;",
        "; SELECT 1",
        "-- first\nSELECT 1",
        "SELECT 1 -- no end; ",
        "\ufeffSELECT 1",
        "SELECT 1;\ufeff",
    ],
)
def test_comments_and_semicolons_around_a_statement_are_fine(db: Database, sql: str) -> None:
    for _ in range(2):
        assert db.query(sql).rows == [(1,)]


@pytest.mark.parametrize(
    ("rest", "blank"),
    [
        ("", True),
        (" \t\r\n\f;", True),
        ("-- x\n/* y */ ; -- z", True),
        ("/* open", True),
        ("/* a */ select /* b */", False),
        ("-- a\nselect -- b", False),
        ("--", True),
        ("-", False),
        ("/", False),
        ("\x0b", False),
        ("\u00a0", False),
    ],
)
def test_what_may_follow_a_statement(rest: str, blank: bool) -> None:
    assert is_blank(rest) is blank


def test_deciding_whether_a_rest_is_blank_takes_linear_time() -> None:
    assert not is_blank("/**/" * 20_000 + "x")
    assert not is_blank("--\n" * 30_000 + "x")
    assert is_blank("/*" + "x" * 50_000)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO notes (body) VALUES ('x') RETURNING id",
        "DELETE FROM notes RETURNING id",
        "PRAGMA optimize",
        "/* hidden */ PRAGMA optimize",
    ],
)
def test_read_only_refuses_what_writes_although_it_returns_rows(notes: Database, sql: str) -> None:
    """Also when the same text is known already because somebody else may write."""
    notes.query(sql)
    before = count(notes)
    for call in (notes.query, notes.query_one):
        with pytest.raises(ForbiddenError) as caught:
            call(sql, read_only=True)
        assert caught.value.code == "read_only"
    assert count(notes) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "VALUES (1)",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "EXPLAIN DELETE FROM notes",
        "EXPLAIN QUERY PLAN SELECT * FROM notes",
        "PRAGMA table_info(notes)",
    ],
)
def test_read_only_allows_what_only_reads(notes: Database, sql: str) -> None:
    assert notes.query(sql, read_only=True).rows
    assert notes.query_one(sql, read_only=True).rows


def test_a_statement_is_parsed_once(notes: Database) -> None:
    """The sandbox is asked at every parse, so its silence proves that there was none."""
    sql = "SELECT body FROM notes WHERE id = ?"
    notes.query("SELECT 1")  # the first one also looks at the schema
    misses = notes._connection.cache_stats()["misses"]
    notes.query(sql, [1])
    assert notes._connection.cache_stats()["misses"] == misses + 1
    sandbox = notes._sandbox
    sandbox.watch()
    for _ in range(5):
        notes.query(sql, [2])
        notes.query_one(sql, [2])
    assert not sandbox.asked


def test_a_write_is_parsed_once(notes: Database) -> None:
    sql = "UPDATE notes SET body = ? WHERE id = 1"
    notes.run(sql, ["a"])
    notes._sandbox.watch()
    notes.run(sql, ["b"])
    assert not notes._sandbox.asked


def test_the_servers_own_statements_are_parsed_once(notes: Database) -> None:
    notes.internal_query(COUNT)
    with notes.transaction():
        pass
    notes._sandbox.watch()
    notes.internal_query(COUNT)
    with notes.transaction():
        pass
    assert not notes._sandbox.asked


def test_no_more_statements_are_remembered_than_the_cache_holds(db: Database) -> None:
    for number in range(STATEMENTS_MAX * 2):
        assert db.query(f"SELECT {number}").rows == [(number,)]
    assert len(db._known) == STATEMENTS_MAX
    assert db.query("SELECT 0").rows == [(0,)]


def test_columns_follow_the_schema(notes: Database) -> None:
    """What is remembered of a statement is forgotten when the schema changes, or changes back."""
    sql = "SELECT * FROM notes WHERE 0"
    assert notes.query(sql).columns == ("id", "body")
    notes.run("ALTER TABLE notes ADD COLUMN more")
    assert notes.query(sql).columns == ("id", "body", "more")
    notes.begin()
    notes.run("ALTER TABLE notes DROP COLUMN more")
    assert notes.query(sql).columns == ("id", "body")
    notes.rollback()
    assert notes.query(sql).columns == ("id", "body", "more")
    with suppress(RuntimeError), notes.transaction(), notes.savepoint():
        notes.run("ALTER TABLE notes RENAME COLUMN more TO less")
        assert notes.query(sql).columns == ("id", "body", "less")
        raise RuntimeError
    assert notes.query(sql).columns == ("id", "body", "more")
    notes.exec("ALTER TABLE notes RENAME COLUMN more TO less")
    assert notes.query(sql).columns == ("id", "body", "less")


def test_columns_follow_a_schema_that_sqlite_rolled_back(notes: Database) -> None:
    sql = "SELECT * FROM notes WHERE 0"
    notes.begin()
    notes.run("ALTER TABLE notes ADD COLUMN more")
    assert notes.query(sql).columns == ("id", "body", "more")
    with pytest.raises(SqlError):
        notes.run("INSERT OR ROLLBACK INTO notes (id, body) VALUES (1, 'x')")
    notes.rollback()
    assert notes.query(sql).columns == ("id", "body")


def test_a_prepared_statement_takes_parameters_one_by_one_or_as_a_mapping(notes: Database) -> None:
    by_id = notes.prepare("SELECT id, body FROM notes WHERE id >= ? ORDER BY id")
    assert by_id.columns == ("id", "body")
    assert by_id.all(2) == [(2, "two"), (3, "three")]
    assert by_id.get(2) == (2, "two")
    assert by_id.get(9) is None
    assert list(by_id.iterate(2)) == [(2, "two"), (3, "three")]
    named = notes.prepare("SELECT :a, @b, $c")
    assert named.get({"a": 1, "b": 2, "c": 3}) == (1, 2, 3)


def test_a_prepared_write_runs_many_times(notes: Database) -> None:
    insert = notes.prepare("INSERT INTO notes (body) VALUES (?)")
    assert insert.columns == ()
    assert [insert.run(str(number)).last_insert_rowid for number in range(3)] == [4, 5, 6]


def test_preparing_checks_the_statement_and_runs_nothing(notes: Database) -> None:
    notes.prepare("DELETE FROM notes")
    assert count(notes) == 3
    with pytest.raises(SqlError, match="no such table: nowhere"):
        notes.prepare("SELECT * FROM nowhere")
    with pytest.raises(InvalidRequestError):
        notes.prepare("SELECT 1; SELECT 2")


def test_a_prepared_statement_survives_a_schema_change(notes: Database) -> None:
    everything = notes.prepare("SELECT * FROM notes WHERE id = 1")
    notes.run("ALTER TABLE notes ADD COLUMN more DEFAULT 7")
    assert everything.all() == [(1, "one", 7)]


def test_an_iterator_is_not_held_to_the_row_limit_and_can_be_closed(notes: Database) -> None:
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 30000)"
    sql = f"{numbers} SELECT x FROM n"
    assert sum(1 for _ in notes.iterate(sql)) == 30_000
    rows = notes.iterate("SELECT id FROM notes")
    assert next(rows) == (1,)
    with pytest.raises(DosqlError) as caught:
        notes.checkpoint()
    assert caught.value.code == "object_busy"
    rows.close()  # type: ignore[attr-defined]
    notes.checkpoint()


@pytest.mark.parametrize("sql", ["DELETE FROM notes RETURNING id", "DELETE FROM notes"])
def test_only_reading_statements_can_be_iterated(notes: Database, sql: str) -> None:
    with pytest.raises(DosqlError):
        next(iter(notes.iterate(sql)))
    assert count(notes) == 3
