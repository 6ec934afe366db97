"""Every way SQLite can fail becomes one of our errors, with a stable code and no path in it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from dosql.errors import (
    ConstraintError,
    CorruptError,
    InvalidRequestError,
    LimitError,
    OverloadedError,
    QuotaError,
    SqlError,
    UnavailableError,
)
from dosql.limits import SQL_BYTES_MAX, VALUE_BYTES_MAX, VARIABLES_MAX
from dosql.sqlite.database import Database, DatabaseLimits
from dosql.wire.statements import Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    Open = Callable[..., Database]


@pytest.fixture
def shop(db: Database) -> Database:
    """One table with every kind of constraint."""
    db.exec(
        """
        CREATE TABLE shops (id INTEGER PRIMARY KEY);
        CREATE TABLE items (
            id INTEGER PRIMARY KEY,
            code TEXT UNIQUE,
            name TEXT NOT NULL,
            price INTEGER CHECK (price > 0),
            shop INTEGER REFERENCES shops (id)
        ) STRICT;
        CREATE TABLE pairs (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
        CREATE TRIGGER no_delete BEFORE DELETE ON items
            BEGIN SELECT RAISE(ABORT, 'items stay'); END;
        INSERT INTO items VALUES (1, 'a', 'apple', 5, NULL);
        INSERT INTO pairs VALUES (1, 1);
        """
    )
    return db


@pytest.mark.parametrize(
    ("sql", "code", "sqlite_code"),
    [
        (
            "INSERT INTO items (code, name) VALUES ('a', 'x')",
            "constraint_unique",
            "SQLITE_CONSTRAINT_UNIQUE",
        ),
        (
            "INSERT INTO items (id, name) VALUES (1, 'x')",
            "constraint_primary_key",
            "SQLITE_CONSTRAINT_PRIMARYKEY",
        ),
        (
            "INSERT INTO pairs VALUES (1, 1)",
            "constraint_primary_key",
            "SQLITE_CONSTRAINT_PRIMARYKEY",
        ),
        (
            "INSERT INTO items (code) VALUES ('b')",
            "constraint_not_null",
            "SQLITE_CONSTRAINT_NOTNULL",
        ),
        (
            "INSERT INTO items (name, price) VALUES ('x', 0)",
            "constraint_check",
            "SQLITE_CONSTRAINT_CHECK",
        ),
        (
            "INSERT INTO items (name, shop) VALUES ('x', 9)",
            "constraint_foreign_key",
            "SQLITE_CONSTRAINT_FOREIGNKEY",
        ),
        (
            "INSERT INTO items (name, price) VALUES ('x', 'y')",
            "constraint_datatype",
            "SQLITE_CONSTRAINT_DATATYPE",
        ),
        ("DELETE FROM items", "constraint_trigger", "SQLITE_CONSTRAINT_TRIGGER"),
    ],
)
@pytest.mark.parametrize("returning", ["", " RETURNING 1"])
def test_each_constraint_has_its_code(
    shop: Database, sql: str, code: str, sqlite_code: str, returning: str
) -> None:
    with pytest.raises(ConstraintError) as caught:
        shop.run(sql + returning)
    assert (caught.value.code, caught.value.sqlite_code) == (code, sqlite_code)
    assert shop.query("SELECT id FROM items").rows == [(1,)]


@pytest.mark.parametrize(
    ("sql", "message", "offset"),
    [
        ("nonsense", 'near "nonsense": syntax error', 0),
        ("SELECT * FRM items", 'near "FRM": syntax error', 9),
        ("SELECT 'é', nope FROM items", "no such column: nope", 13),
        ("SELECT * FROM nowhere", "no such table: nowhere", None),
        ("SELECT nofunction()", "no such function: nofunction", 7),
        ("SELECT (1", "incomplete input", None),
        ("SELECT abs()", "wrong number of arguments to function abs()", 7),
        ("SELECT abs(-9223372036854775808)", "integer overflow", None),
        ("SELECT json('{')", "malformed JSON", None),
        ("SELECT unterminated 'text", 'unrecognized token: "\'text"', 20),
    ],
)
def test_a_wrong_statement_is_told_in_sqlites_words(
    shop: Database, sql: str, message: str, offset: int | None
) -> None:
    """The offset counts bytes of the UTF-8 text."""
    for _ in range(2):
        with pytest.raises(SqlError) as caught:
            shop.query(sql)
        assert caught.value.message == message
        assert caught.value.code == "sql_error"
        assert caught.value.sqlite_code == "SQLITE_ERROR"
        assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT ?", ()),
        ("SELECT ?", (1, 2)),
        ("SELECT 1", (1,)),
        ("SELECT ?", {}),
        ("SELECT ?", {"a": 1}),
        ("SELECT :a", {}),
        ("SELECT :a", {":a": 1}),
        ("SELECT :a, @b, $c", {"a": 1, "b": 2}),
        ("SELECT ?", (2**63,)),
        ("SELECT ?", (-(2**63) - 1,)),
        ("SELECT :a", {"a": 10**30}),
        ("SELECT ?", ("\ud800",)),
        ("SELECT :a", {"a": "x\udfff"}),
        ("SELECT ?", ([1],)),
        ("SELECT ?", ({"a": 1},)),
        ("SELECT ?", (object(),)),
        ("SELECT ?", 3),
        ("SELECT ?", None),
        ("SELECT ?5", (1,)),
    ],
)
def test_wrong_parameters_are_the_senders_fault(db: Database, sql: str, params: Any) -> None:
    """Finding 10: these crash a path that only expects SQLite's own errors."""
    for call in (db.query, db.query_one):
        for _ in range(2):
            with pytest.raises(InvalidRequestError) as caught:
                call(sql, params)
            assert caught.value.code == "invalid_parameter"
    db.run("CREATE TABLE t (a)")
    if "?5" not in sql:
        with pytest.raises(InvalidRequestError) as caught:
            db.run(f"INSERT INTO t VALUES (({sql}))" if "," not in sql else sql, params)
        assert caught.value.code in ("invalid_parameter", "statement_is_read_only")
    assert db.query("SELECT count(*) FROM t").rows == [(0,)]


def test_a_mapping_may_hold_more_than_the_statement_names(db: Database) -> None:
    assert db.query("SELECT :a", {"a": 1, "z": 2}).rows == [(1,)]


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        (f"SELECT zeroblob({VALUE_BYTES_MAX + 1})", ()),
        (f"SELECT printf('%{VALUE_BYTES_MAX + 1}d', 1)", ()),
        ("SELECT ?", ("x" * (VALUE_BYTES_MAX + 1),)),
        ("SELECT ?", (b"x" * (VALUE_BYTES_MAX + 1),)),
        ("SELECT group_concat(hex(zeroblob(1000000))) FROM (VALUES (1), (2))", ()),
    ],
)
def test_a_value_beyond_the_limit_is_too_large(db: Database, sql: str, params: Any) -> None:
    for _ in range(2):
        with pytest.raises(LimitError) as caught:
            db.query(sql, params)
        assert caught.value.code == "value_too_large"


def test_a_value_at_the_limit_is_kept(db: Database) -> None:
    value = b"x" * (VALUE_BYTES_MAX - 100)  # the row around it counts too
    db.run("CREATE TABLE t (a)")
    db.run("INSERT INTO t VALUES (?)", [value])
    assert db.query("SELECT a FROM t").rows == [(value,)]


def test_a_statement_beyond_the_limit_is_too_long(db: Database) -> None:
    with pytest.raises(LimitError) as caught:
        db.query("SELECT 1 " + " " * SQL_BYTES_MAX)
    assert caught.value.code == "statement_too_large"


def _doubling_views(db: Database, depth: int) -> str:
    db.run("CREATE TABLE t (a)")
    db.run("CREATE VIEW v0 AS SELECT a FROM t")
    for level in range(depth):
        db.run(
            f"CREATE VIEW v{level + 1} AS SELECT * FROM v{level} UNION ALL SELECT 1 FROM v{level}"
        )
    return f"SELECT * FROM v{depth}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "(" * 300 + "1" + ")" * 300,
        "SELECT 1" + "+1" * 300,
        " UNION ALL ".join(["SELECT 1"] * 60),
        "SELECT " + ",".join("1" * 1 for _ in range(300)),
        "SELECT max(" + ",".join("1" for _ in range(200)) + ")",
        "SELECT " + ",".join("?" for _ in range(VARIABLES_MAX + 1)),
        "SELECT ?1001",
        f"SELECT 'x' LIKE '{'%a' * 30}'",
        "SELECT * FROM " + ",".join(f"(SELECT 1) AS t{number}" for number in range(70)),
        "CREATE TABLE wide (" + ",".join(f"c{number}" for number in range(300)) + ")",
    ],
)
def test_a_statement_too_complex_is_an_error_of_the_statement(db: Database, sql: str) -> None:
    call = db.run if sql.startswith("CREATE") else db.query
    with pytest.raises(SqlError):
        call(sql, [1] * (VARIABLES_MAX + 1) if "?," in sql else ())


def test_a_statement_that_explodes_while_it_is_prepared_is_too_complex(db: Database) -> None:
    sql = _doubling_views(db, 13)
    with pytest.raises(SqlError) as caught:
        db.query(sql)
    assert caught.value.code in ("statement_too_complex", "sql_error")
    assert db.query("SELECT 1").rows == [(1,)]


def test_the_quota_is_told_and_nothing_of_the_statement_stays(open_database: Open) -> None:
    db = open_database(limits=DatabaseLimits(database_bytes=64 * 4096))
    db.run("CREATE TABLE t (a)")
    db.run("INSERT INTO t VALUES (zeroblob(100000))")
    with pytest.raises(QuotaError) as caught:
        db.run("INSERT INTO t SELECT zeroblob(100000) FROM (VALUES (1), (2), (3))")
    assert caught.value.code == "quota_exceeded"
    assert db.query("SELECT count(*) FROM t").rows == [(1,)]
    db.run("DELETE FROM t")
    db.run("INSERT INTO t VALUES (zeroblob(100000))")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_apart_from_the_quota(open_database: Open, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        db = open_database(folder=disk)
        db.run("CREATE TABLE t (a)")
        with pytest.raises(QuotaError) as caught:
            db.batch([Operation("run", "INSERT INTO t VALUES (zeroblob(100000))")] * 100)
        assert caught.value.code == "disk_full"
        assert str(disk) not in str(caught.value)
        assert db.query("PRAGMA integrity_check").rows == [("ok",)]
        db.close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_damaged_page_breaks_the_database_for_good(open_database: Open, tmp_path: Path) -> None:
    db = open_database()
    db.run("CREATE TABLE t (a)")
    for _ in range(3):
        db.run("INSERT INTO t VALUES (zeroblob(3000))")
    db.checkpoint()
    db.close()
    path = tmp_path / "tenant.db"
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)
    db = open_database()
    with pytest.raises(CorruptError) as caught:
        db.query("SELECT * FROM t")
    assert caught.value.code == "object_corrupt"
    assert db.broken is caught.value
    for call in (
        lambda: db.query("SELECT 1"),
        lambda: db.query_one("SELECT 1"),
        lambda: db.run("CREATE TABLE u (a)"),
        lambda: db.internal_query("SELECT 1"),
        lambda: db.batch([]),
        lambda: db.exec(""),
        lambda: db.prepare("SELECT 1"),
        db.begin,
        db.commit,
        db.checkpoint,
    ):
        with pytest.raises(CorruptError):
            call()
    db.rollback()


@pytest.mark.parametrize("content", [b"this is not a database, but it is long enough" * 100])
def test_a_file_that_is_no_database_is_refused(
    open_database: Open, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "tenant.db").write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        open_database()
    assert caught.value.code == "object_corrupt"


@pytest.mark.parametrize("name", ["missing/tenant.db", "folder"])
def test_a_file_that_cannot_be_opened_is_told_without_its_path(
    open_database: Open, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnavailableError) as caught:
        open_database(name)
    assert str(tmp_path) not in str(caught.value)


def test_a_symbolic_link_is_not_followed(open_database: Open, tmp_path: Path) -> None:
    open_database("real.db").close()
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    with pytest.raises(UnavailableError):
        open_database("link.db")


def test_a_second_connection_to_the_file_is_refused(open_database: Open) -> None:
    db = open_database()
    db.run("CREATE TABLE t (a)")
    with pytest.raises(OverloadedError) as caught:
        open_database()
    assert caught.value.code == "object_busy"


class FailingFile(apsw.VFSFile):
    """A real file whose writes fail from a moment on."""

    failing = False

    def xWrite(self, data: Any, offset: int) -> None:
        if FailingFile.failing:
            raise apsw.IOError("the disk went away")
        super().xWrite(data, offset)


class FailingVfs(apsw.VFS):
    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return FailingFile("", name, flags)


@pytest.fixture
def failing_vfs() -> Iterator[str]:
    FailingFile.failing = False
    name = f"failing-{next(_numbers)}"
    vfs = FailingVfs(name, "")
    yield name
    vfs.unregister()


_numbers = itertools.count()


def test_a_failed_write_breaks_the_database_for_good(open_database: Open, failing_vfs: str) -> None:
    """An I/O error is never tried again: the next attempt might only seem to succeed."""
    db = open_database(vfs=failing_vfs)
    db.run("CREATE TABLE t (a)")
    FailingFile.failing = True
    with pytest.raises(UnavailableError) as caught:
        db.run("INSERT INTO t VALUES (1)")
    assert caught.value.code == "object_recovering"
    assert caught.value.retryable
    FailingFile.failing = False
    with pytest.raises(UnavailableError):
        db.run("INSERT INTO t VALUES (1)")
    assert db.broken is caught.value
    db.close()


def test_a_failed_write_inside_a_transaction_leaves_nothing(
    open_database: Open, failing_vfs: str
) -> None:
    db = open_database(vfs=failing_vfs)
    db.run("CREATE TABLE t (a)")
    db.begin()
    db.run("INSERT INTO t VALUES (1)")
    FailingFile.failing = True
    with pytest.raises(UnavailableError):
        db.commit()
    db.close()
    FailingFile.failing = False
    db = open_database(vfs=failing_vfs)
    assert db.query("SELECT * FROM t").rows == []
    db.close()
