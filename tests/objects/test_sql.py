"""SQL storage: exec and its cursor, over a real database file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dosql.clock import SystemClock
from dosql.errors import (
    BudgetError,
    ConstraintError,
    ForbiddenError,
    InvalidRequestError,
    LimitError,
    SqlError,
)
from dosql.limits import VALUE_BYTES_MAX
from dosql.objects import sql as sql_module
from dosql.objects.sql import Ingested, Sql
from dosql.sqlite.database import Database
from tests.support.direct_access import DirectAccess


@pytest.fixture
def access(tmp_path: Path) -> Iterator[DirectAccess]:
    db = Database(str(tmp_path / "object.db"), clock=SystemClock())
    yield DirectAccess(db)
    db.close()


@pytest.fixture
def sql(access: DirectAccess) -> Sql:
    """Three artists, committed."""
    sql = Sql(access)
    sql.exec(
        "CREATE TABLE artist (id INTEGER PRIMARY KEY, name TEXT UNIQUE, born INTEGER);"
        "INSERT INTO artist VALUES (1, 'Ann', 1990), (2, 'Bob', 1980), (3, 'Cid', NULL)"
    )
    access.commit()
    access.writes.clear()
    return sql


NAMES = "SELECT name FROM artist ORDER BY id"


# --- statements -------------------------------------------------------------------------------


def test_exec_runs_at_once_and_its_cursor_is_iterable(sql: Sql) -> None:
    assert [row["name"] for row in sql.exec(NAMES)] == ["Ann", "Bob", "Cid"]
    sql.exec("DELETE FROM artist WHERE id = ?", 2)
    assert [row["name"] for row in sql.exec(NAMES)] == ["Ann", "Cid"]


def test_a_statement_that_reads_opens_no_transaction(sql: Sql, access: DirectAccess) -> None:
    sql.exec(NAMES)
    sql.exec("EXPLAIN QUERY PLAN DELETE FROM artist")
    assert sql.exec("PRAGMA table_info(artist)").to_list()[0]["name"] == "id"
    assert access.writes == []
    sql.exec("UPDATE artist SET born = 1 RETURNING id")
    assert access.db.in_transaction
    access.rollback()
    assert sql.exec("SELECT born FROM artist WHERE id = 2").one() == {"born": 1980}


def test_parameters_are_given_one_by_one_or_by_name(sql: Sql) -> None:
    query = "SELECT id FROM artist WHERE name = ? AND born > ?"
    assert sql.exec(query, "Ann", 1950).one() == {"id": 1}
    named = "SELECT id FROM artist WHERE name = :name AND born > $born"
    assert sql.exec(named, {"name": "Bob", "born": 1950}).one() == {"id": 2}
    values = [None, True, 7, 2**63 - 1, 1.5, "é", b"\x00", bytearray(b"x")]
    row = next(sql.exec("SELECT ?, ?, ?, ?, ?, ?, ?, ?", *values).raw())
    assert row == (None, 1, 7, 2**63 - 1, 1.5, "é", b"\x00", b"x")


@pytest.mark.parametrize(
    ("query", "bindings"),
    [
        ("SELECT ?", ()),
        ("SELECT ?", (1, 2)),
        ("SELECT 1", (1,)),
        ("SELECT :a", ({"b": 1},)),
        ("SELECT ?", (object(),)),
        ("SELECT ?", (2**63,)),
        ("SELECT ?", ("\ud800",)),
        ("SELECT ?1, ?2; SELECT 1", ()),
        ("INSERT INTO artist (name) VALUES (?); SELECT ?", ("x",)),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    sql: Sql, query: str, bindings: tuple[Any, ...]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        sql.exec(query, *bindings)
    assert caught.value.code == "invalid_parameter"
    assert sql.exec("SELECT count(*) AS n FROM artist").one() == {"n": 3}


@pytest.mark.parametrize("query", ["", " ; ", "-- nothing", ";;/* nothing */", "\n\t"])
def test_text_without_a_statement_is_refused(sql: Sql, query: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        sql.exec(query)
    assert caught.value.code == "sql_empty"


def test_of_several_statements_the_last_has_the_parameters_and_the_rows(sql: Sql) -> None:
    cursor = sql.exec(
        """
        CREATE TABLE t (a, b DEFAULT ';');  -- a ; in a comment
        CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET b = 'x;y'; SELECT 1; END;
        INSERT INTO t (a) VALUES (1);
        SELECT 'dropped';
        SELECT a, b FROM t WHERE a = ?;
        -- the end ;
        """,
        1,
    )
    assert cursor.to_list() == [{"a": 1, "b": "x;y"}]
    assert cursor.column_names == ["a", "b"]
    assert cursor.rows_written == 2


def test_if_one_of_several_statements_fails_none_has_an_effect(sql: Sql) -> None:
    """Also in the middle of a step: what was written before it stays."""
    sql.exec("INSERT INTO artist (name) VALUES ('Dan')")
    with pytest.raises(ConstraintError):
        sql.exec(
            "CREATE TABLE t (a); DELETE FROM artist WHERE id = 1;"
            "INSERT INTO artist (name) VALUES (?)",
            "Bob",
        )
    assert [row["name"] for row in sql.exec(NAMES)] == ["Ann", "Bob", "Cid", "Dan"]
    with pytest.raises(SqlError, match="no such table: t"):
        sql.exec("SELECT * FROM t")


def test_a_statement_that_fails_leaves_nothing_behind(sql: Sql) -> None:
    with pytest.raises(ConstraintError) as caught:
        sql.exec("INSERT INTO artist (name) VALUES ('Eve'), ('Bob')")
    assert caught.value.code == "constraint_unique"
    assert caught.value.sqlite_code == "SQLITE_CONSTRAINT_UNIQUE"
    assert sql.exec("SELECT count(*) AS n FROM artist").one() == {"n": 3}


def test_errors_name_the_place_in_the_statement(sql: Sql) -> None:
    with pytest.raises(SqlError) as caught:
        sql.exec("SELECT nme FROM artist")
    assert (caught.value.message, caught.value.offset) == ("no such column: nme", 7)
    assert caught.value.sqlite_code == "SQLITE_ERROR"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("BEGIN", "transaction_forbidden"),
        ("SELECT 1; COMMIT", "transaction_forbidden"),
        ("SAVEPOINT a", "transaction_forbidden"),
        ("CREATE TABLE _dosql_x (a)", "sql_forbidden"),
        ("CREATE TABLE x (a); ALTER TABLE x RENAME TO _dosql_x", "sql_forbidden"),
        ("ATTACH 'x' AS y", "sql_forbidden"),
        ("PRAGMA journal_mode = DELETE", "sql_forbidden"),
    ],
)
def test_what_belongs_to_the_server_is_refused(sql: Sql, query: str, code: str) -> None:
    with pytest.raises(ForbiddenError) as caught:
        sql.exec(query)
    assert caught.value.code == code


def test_a_statement_past_the_deadline_leaves_nothing_behind(
    sql: Sql, access: DirectAccess
) -> None:
    access.db.set_deadline(0.01)
    forever = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    with pytest.raises(BudgetError):
        sql.exec(forever + "SELECT max(x) FROM n")
    access.db.set_deadline(None)
    assert sql.exec("SELECT count(*) AS n FROM artist").one() == {"n": 3}


# --- cursors ----------------------------------------------------------------------------------


def test_next_says_when_it_is_done(sql: Sql) -> None:
    cursor = sql.exec("SELECT id FROM artist WHERE id < 3")
    assert cursor.next() == {"done": False, "value": {"id": 1}}
    assert cursor.next() == {"done": False, "value": {"id": 2}}
    assert cursor.next() == {"done": True}
    assert cursor.next() == {"done": True}
    assert cursor.to_list() == []


def test_all_ways_of_reading_share_one_position(sql: Sql) -> None:
    cursor = sql.exec("SELECT id FROM artist ORDER BY id")
    assert cursor.next() == {"done": False, "value": {"id": 1}}
    raw = cursor.raw()
    assert next(raw) == (2,)
    assert cursor.to_list() == [{"id": 3}]
    assert list(raw) == []


def test_one_is_exactly_one(sql: Sql) -> None:
    assert sql.exec("SELECT id FROM artist WHERE id = 1").one() == {"id": 1}
    with pytest.raises(InvalidRequestError) as caught:
        sql.exec("SELECT id FROM artist WHERE id = 9").one()
    assert caught.value.code == "not_one_row"
    assert caught.value.message == (
        "Expected exactly one result from SQL query, but got no results."
    )
    with pytest.raises(InvalidRequestError, match="but got multiple results"):
        sql.exec(NAMES).one()
    cursor = sql.exec("SELECT id FROM artist WHERE id < 3")
    cursor.next()
    assert cursor.one() == {"id": 2}, "the only one that is left"


def test_of_columns_with_the_same_name_the_last_counts_and_raw_has_all(sql: Sql) -> None:
    cursor = sql.exec("SELECT 1 AS a, 2 AS b, 3 AS a")
    assert cursor.column_names == ["a", "b", "a"]
    assert cursor.one() == {"a": 3, "b": 2}
    assert cursor.column_names == ["a", "b", "a"]
    assert list(sql.exec("SELECT 1 AS a, 2 AS b, 3 AS a").raw()) == [(1, 2, 3)]


def test_a_statement_without_rows_has_no_columns(sql: Sql) -> None:
    cursor = sql.exec("UPDATE artist SET born = 1")
    assert cursor.column_names == []
    assert cursor.to_list() == []
    assert sql.exec("CREATE TABLE t (a)").column_names == []
    assert sql.exec("SELECT id FROM artist WHERE 0").column_names == ["id"]


def test_cursors_overlap_and_show_the_moment_of_their_exec(sql: Sql, access: DirectAccess) -> None:
    """A cursor holds no statement open: not the same one again, nor a change of the schema, nor
    a checkpoint, meets it."""
    first, second = sql.exec(NAMES), sql.exec(NAMES)
    assert first.next() == second.next()
    sql.exec("DELETE FROM artist")
    sql.exec("DROP TABLE artist")
    access.commit()
    access.db.checkpoint()
    assert [row["name"] for row in first] == ["Bob", "Cid"]
    access.db.wipe()
    assert [row["name"] for row in second] == ["Bob", "Cid"]


def test_returning_writes_everything_before_the_first_row(sql: Sql) -> None:
    cursor = sql.exec("UPDATE artist SET born = 0 RETURNING id")
    assert cursor.next() == {"done": False, "value": {"id": 1}}
    assert sql.exec("SELECT sum(born) AS s FROM artist").one() == {"s": 0}
    assert cursor.rows_written == 3


@dataclass
class Artist:
    id: int
    name: str
    born: int | None


class Flag(msgspec.Struct):
    on: bool


def test_rows_become_what_is_asked_for(sql: Sql) -> None:
    artist = sql.exec("SELECT * FROM artist WHERE id = 1", into=Artist).one()
    assert artist == Artist(1, "Ann", 1990)
    found = sql.exec("SELECT * FROM artist ORDER BY id", into=Artist)
    assert [each.name for each in found] == ["Ann", "Bob", "Cid"]
    assert sql.exec('SELECT 1 AS "on"', into=Flag).one() == Flag(True)
    with pytest.raises(InvalidRequestError) as caught:
        sql.exec("SELECT id, name FROM artist", into=Artist).to_list()
    assert caught.value.code == "type_mismatch"
    assert "`born`" in caught.value.message


def test_a_cursor_is_bounded(sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in memory whole. The limits of HTTP answers, far lower, do not hold here."""
    many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000)"
    assert len(sql.exec(f"{many} SELECT x FROM n").to_list()) == 20_000
    monkeypatch.setattr(sql_module, "SQL_CURSOR_ROWS_MAX", 19_999)
    with pytest.raises(LimitError) as caught:
        sql.exec(f"{many} SELECT x FROM n")
    assert caught.value.code == "result_too_large"
    with pytest.raises(LimitError):
        sql.exec(f"{many} INSERT INTO artist (id) SELECT x + 3 FROM n RETURNING id")
    assert sql.exec("SELECT count(*) AS n FROM artist").one() == {"n": 3}
    monkeypatch.setattr(sql_module, "SQL_CURSOR_BYTES_MAX", VALUE_BYTES_MAX)
    with pytest.raises(LimitError):
        sql.exec("SELECT zeroblob(2000000), zeroblob(2000000)")


def test_text_that_is_not_utf8_comes_as_bytes(sql: Sql) -> None:
    assert sql.exec("SELECT CAST(x'ff' AS TEXT) AS t").one() == {"t": b"\xff"}


# --- counters ---------------------------------------------------------------------------------


def test_rows_read_counts_what_a_scan_went_over(sql: Sql) -> None:
    """SQLite counts the steps from row to row: one less than there are rows."""
    sql.exec("DELETE FROM artist")
    sql.exec(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100)"
        " INSERT INTO artist SELECT x, 'name' || x, x % 10 FROM n"
    )
    for _ in range(2):  # the second time the statement is known
        assert sql.exec("SELECT * FROM artist").rows_read == 100
        assert sql.exec("SELECT * FROM artist WHERE born = 3").rows_read == 99
        assert sql.exec("SELECT * FROM artist WHERE id = 3").rows_read == 1
        assert sql.exec("SELECT * FROM artist WHERE id BETWEEN 1 AND 7").rows_read == 7
        assert sql.exec("UPDATE artist SET born = born WHERE born = 3").rows_read == 99
    sql.exec("CREATE INDEX by_born ON artist(born)")
    assert sql.exec("SELECT * FROM artist WHERE born = 3").rows_read == 10


def test_rows_written_counts_rows_of_triggers_and_foreign_keys_too(sql: Sql) -> None:
    assert sql.exec("INSERT INTO artist (name) VALUES ('x'), ('y')").rows_written == 2
    assert sql.exec("UPDATE artist SET born = 1 WHERE id < 3").rows_written == 2
    assert sql.exec(NAMES).rows_written == 0
    assert sql.exec("ANALYZE").rows_written >= 0
    sql.exec(
        "CREATE TABLE song (id INTEGER PRIMARY KEY, artist REFERENCES artist ON DELETE CASCADE);"
        "INSERT INTO song (artist) VALUES (1), (1), (2)"
    )
    assert sql.exec("DELETE FROM artist WHERE id = 1").rows_written == 3


def test_the_size_is_what_is_in_use(sql: Sql, access: DirectAccess) -> None:
    before = sql.database_size
    assert before == access.db.size_bytes
    sql.exec("CREATE TABLE big AS SELECT zeroblob(100000) AS b")
    assert sql.database_size > before + 100_000
    sql.exec("DROP TABLE big")
    access.commit()
    assert sql.database_size == before
    assert access.db.size_bytes > before + 100_000, "free pages stay in the file"


# --- on a thread ------------------------------------------------------------------------------


async def test_a_long_statement_may_run_on_a_thread(sql: Sql, access: DirectAccess) -> None:
    cursor = await sql.exec_on_thread("SELECT name FROM artist WHERE id = ?", 2)
    assert cursor.one() == {"name": "Bob"}
    cursor = await sql.exec_on_thread(
        "DELETE FROM artist WHERE id = 1; INSERT INTO artist (name) VALUES (?) RETURNING name",
        "Dan",
    )
    assert cursor.rows_written == 2
    assert not access.db.in_transaction, "it was committed there"
    assert [row["name"] for row in sql.exec(NAMES)] == ["Bob", "Cid", "Dan"]
    one = await sql.exec_on_thread("SELECT * FROM artist WHERE id = 2", into=Artist)
    assert one.one() == Artist(2, "Bob", 1980)


async def test_what_fails_on_a_thread_leaves_nothing_behind(sql: Sql) -> None:
    with pytest.raises(ConstraintError):
        await sql.exec_on_thread(
            "DELETE FROM artist WHERE id = 1; INSERT INTO artist VALUES(2,2,2)"
        )
    assert sql.exec("SELECT count(*) AS n FROM artist").one() == {"n": 3}


# --- ingest -----------------------------------------------------------------------------------


def test_ingest_runs_what_is_complete_and_gives_back_the_rest(sql: Sql) -> None:
    done = sql.ingest("SELECT name FROM artist; DELETE FROM artist WHERE id > 1; INSERT INTO art")
    assert done == Ingested(" INSERT INTO art", 3, 2, 2)
    assert sql.exec("SELECT count(*) AS n FROM artist").one() == {"n": 1}
    done = sql.ingest(f"{done.remainder}ist VALUES (9, 'it;s', NULL);\n")
    assert (done.remainder, done.rows_written, done.statement_count) == ("\n", 1, 1)
    assert sql.exec("SELECT name FROM artist WHERE id = 9").one() == {"name": "it;s"}


def test_a_text_may_be_cut_anywhere(sql: Sql) -> None:
    text = """
        -- a comment; with a semicolon
        CREATE TABLE "odd;name" ([a;b] TEXT, `c;d` TEXT);
        INSERT INTO "odd;name" VALUES ('it''s; this', /* or; */ 'that');;
        CREATE TRIGGER renamed AFTER UPDATE ON artist BEGIN
            INSERT INTO "odd;name" VALUES (old.name, new.name);
            DELETE FROM artist WHERE born IS NULL;
        END;
        UPDATE artist SET name = 'Eve' WHERE id = 1;
        SELECT 1"""
    for cut in range(1, 40):
        remainder, count = "", 0
        for start in range(0, len(text), cut):
            done = sql.ingest(remainder + text[start : start + cut])
            remainder, count = done.remainder, count + done.statement_count
        assert remainder.strip() == "SELECT 1" and count == 4
        rows = sql.exec('SELECT * FROM "odd;name"').raw()
        assert list(rows) == [("it's; this", "that"), ("Ann", "Eve")]
        sql.exec(
            'DROP TRIGGER renamed; DROP TABLE "odd;name";'
            "DELETE FROM artist; INSERT INTO artist VALUES (1, 'Ann', 1990), (3, 'Cid', NULL)"
        )


def test_if_a_statement_of_ingest_fails_none_of_its_piece_has_had_an_effect(sql: Sql) -> None:
    with pytest.raises(ConstraintError):
        sql.ingest("DELETE FROM artist WHERE id = 1; INSERT INTO artist VALUES (2, 'Bob', 1);")
    assert sql.exec("SELECT count(*) AS n FROM artist").one() == {"n": 3}


def test_what_ingest_refuses(sql: Sql) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        sql.ingest("SELECT ?;")
    assert caught.value.code == "invalid_parameter"
    with pytest.raises(InvalidRequestError) as caught:
        sql.ingest("SELECT '\0';")
    assert caught.value.code == "invalid_encoding"
    with pytest.raises(ForbiddenError):
        sql.ingest("BEGIN;")


def test_nothing_to_ingest_writes_nothing(sql: Sql, access: DirectAccess) -> None:
    for text in ("", " \n", ";;", "-- no; statement\n", "SELECT 1", "/* not over;", "'neither;"):
        done = sql.ingest(text)
        assert (done.rows_read, done.rows_written, done.statement_count) == (0, 0, 0)
        assert text.endswith(done.remainder)
    assert sql.ingest(";;").remainder == ""
    assert access.writes == []
