"""The value contract of rows, and the limits on an answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from dosql.errors import LimitError, SqlError
from dosql.sqlite.database import Database, DatabaseLimits
from dosql.wire.statements import Operation

Open = Callable[..., Database]

NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {}) SELECT x FROM n"


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -1,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        0.0,
        1.5,
        5e-324,
        1.7976931348623157e308,
        math.inf,
        -math.inf,
        "",
        "plain",
        "é€\U0001f600",
        "nul\0inside",
        "\0",
        "\ufeffmark",
        b"",
        b"\0\xff",
        bytes(range(256)),
    ],
)
def test_a_value_comes_back_as_it_was_sent(db: Database, value: Any) -> None:
    db.run("CREATE TABLE t (a)")
    db.run("INSERT INTO t VALUES (?)", [value])
    for rows in (
        db.query("SELECT a FROM t").rows,
        db.query_one("SELECT a FROM t").rows,
        db.query("SELECT :a", {"a": value}).rows,
    ):
        [(found,)] = rows
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("value", "stored"), [(True, 1), (False, 0), (math.nan, None)])
def test_what_sqlite_has_no_type_for_is_stored_as_the_nearest(
    db: Database, value: Any, stored: Any
) -> None:
    assert db.query("SELECT ?", [value]).rows == [(stored,)]


BAD = b"a\xff"


@pytest.mark.parametrize("method", ["query", "query_one"])
@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("SELECT CAST(x'61ff' AS TEXT)", (BAD,)),
        ("SELECT CAST(x'61ff' AS TEXT);", (BAD,)),
        ("SELECT CAST(x'61ff' AS TEXT) -- why", (BAD,)),
        ("SELECT CAST(x'61ff' AS TEXT); -- why", (BAD,)),
        ("VALUES (CAST(x'61ff' AS TEXT))", (BAD,)),
        ("WITH a AS (SELECT CAST(x'61ff' AS TEXT)) SELECT * FROM a", (BAD,)),
        ("SELECT CAST(x'61ff' AS TEXT), 'é', 1, 1.5, NULL, x'00'", (BAD, "é", 1, 1.5, None, b"\0")),
        ("SELECT CAST(x'61ff' AS TEXT) AS a, ?2 AS a, ?1 AS b", (BAD, 2, 1)),
    ],
)
def test_text_that_is_not_utf8_comes_as_bytes(
    db: Database, method: str, sql: str, row: tuple[Any, ...]
) -> None:
    """Finding 10: the rest of the row keeps its types, the columns their names."""
    params = [1, 2] if "?" in sql else []
    for _ in range(2):
        assert getattr(db, method)(sql, params).rows == [row]


def test_rows_with_bad_text_keep_their_order_and_names(db: Database) -> None:
    db.run("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    for number in range(50):
        text = "CAST(x'ff' AS TEXT)" if number % 7 == 0 else "'fine'"
        db.run(f"INSERT INTO t VALUES ({number}, {text})")
    found = db.query('SELECT id AS n, a AS "the text" FROM t ORDER BY id DESC')
    assert found.columns == ("n", "the text")
    assert [row[0] for row in found.rows] == list(range(49, -1, -1))
    assert {row[1] for row in found.rows} == {"fine", b"\xff"}


def test_random_is_drawn_once_for_a_row_with_bad_text(db: Database) -> None:
    sql = (
        "SELECT CAST(x'ff' AS TEXT), CASE WHEN random() > 0 THEN 'text' ELSE 1 END"
        " FROM (" + NUMBERS.format(200) + ")"
    )
    kinds = [type(row[1]) for row in db.query(sql).rows]
    assert set(kinds) == {str, int}


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (CAST(x'ff' AS TEXT)) RETURNING a",
        "UPDATE t SET a = CAST(x'ff' AS TEXT) RETURNING a",
    ],
)
def test_a_write_that_returns_bad_text_is_refused_and_undone(db: Database, sql: str) -> None:
    db.exec("CREATE TABLE t (a); INSERT INTO t VALUES ('before')")
    for call in (db.query, db.query_one, db.run):
        with pytest.raises(SqlError) as caught:
            call(sql)
        assert caught.value.code == "invalid_text"
    assert db.query("SELECT a FROM t").rows == [("before",)]
    assert not db.in_transaction


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_an_imported_utf16_database_works(
    open_database: Open, tmp_path: Path, encoding: str
) -> None:
    with apsw.Connection(str(tmp_path / "tenant.db")) as foreign:
        foreign.pragma("encoding", encoding)
        foreign.execute("CREATE TABLE t (a); INSERT INTO t VALUES ('é\U0001f600')")
    foreign.close()
    db = open_database()
    db.run("INSERT INTO t VALUES (?)", ["ñ\0x"])
    assert db.query("SELECT a FROM t").rows == [("é\U0001f600",), ("ñ\0x",)]
    lone = b"\x00\xd8" if encoding == "UTF-16le" else b"\xd8\x00"
    found = db.query("SELECT CAST(? AS TEXT), a FROM t LIMIT 1", [lone + lone]).rows
    assert found[0][1] == "é\U0001f600"


@pytest.mark.parametrize("rows", [0, 1, 9, 10])
def test_an_answer_may_have_as_many_rows_as_the_limit(open_database: Open, rows: int) -> None:
    db = open_database(limits=DatabaseLimits(rows=10))
    assert len(db.query(f"{NUMBERS.format(100)} WHERE x <= {rows}").rows) == rows


def test_one_row_over_the_limit_is_refused_early(open_database: Open) -> None:
    """The rest is not computed: it would fail. And the read is over: a checkpoint gets through."""
    db = open_database(limits=DatabaseLimits(rows=10))
    db.exec(f"CREATE TABLE t (x); INSERT INTO t {NUMBERS.format(30)}")
    sql = "SELECT CASE WHEN x > 20 THEN abs(-9223372036854775808) ELSE x END FROM t"
    for _ in range(2):
        with pytest.raises(LimitError) as caught:
            db.query(sql)
        assert caught.value.code == "result_too_large"
        db.checkpoint()
    assert db.query_one(sql).rows == [(1,)]


@pytest.mark.parametrize("value", ["x" * 1000, b"x" * 1000])
def test_bytes_of_an_answer_are_limited(open_database: Open, value: Any) -> None:
    db = open_database(limits=DatabaseLimits(result_bytes=10_000))
    sql = f"SELECT ? FROM ({NUMBERS.format('{}')})"
    assert len(db.query(sql.format(9), [value]).rows) == 9
    with pytest.raises(LimitError) as caught:
        db.query(sql.format(10), [value])
    assert caught.value.code == "result_too_large"
    with pytest.raises(LimitError):
        db.query_one("SELECT ?", [value * 11])


def test_numbers_count_too(open_database: Open) -> None:
    db = open_database(limits=DatabaseLimits(result_bytes=800))
    assert len(db.query(NUMBERS.format(100)).rows) == 100
    with pytest.raises(LimitError):
        db.query(NUMBERS.format(101))


@pytest.mark.parametrize("sql", ["UPDATE t SET a = a + 1 RETURNING a", "DELETE FROM t RETURNING a"])
def test_a_write_that_returns_too_much_is_undone(open_database: Open, sql: str) -> None:
    """SQLite has written all rows before it returns the first one."""
    db = open_database(limits=DatabaseLimits(rows=10))
    db.exec(f"CREATE TABLE t (a); INSERT INTO t {NUMBERS.format(50)}")
    with pytest.raises(LimitError):
        db.query(sql)
    assert db.query("SELECT count(*), sum(a) FROM t").rows == [(50, 1275)]
    db.begin()
    db.run("DELETE FROM t WHERE a = 1")
    with pytest.raises(LimitError):
        db.query(sql)
    db.commit()
    assert db.query("SELECT count(*), sum(a) FROM t").rows == [(49, 1274)]
    assert db.run(sql).changes == 49


@pytest.mark.parametrize(
    "limits", [DatabaseLimits(rows=10), DatabaseLimits(result_bytes=80), DatabaseLimits(rows=14)]
)
def test_the_limits_hold_for_a_whole_batch(open_database: Open, limits: DatabaseLimits) -> None:
    db = open_database(limits=limits)
    steps = [Operation("query", NUMBERS.format(5))] * 3
    with pytest.raises(LimitError) as caught:
        db.batch(steps)
    assert caught.value.index == 2
    assert len(db.batch(steps[:2])) == 2
    assert len(db.query(NUMBERS.format(10)).rows) == 10
