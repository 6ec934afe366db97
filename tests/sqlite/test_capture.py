"""Capture: every change of a row, with the commit that made it, and none that was undone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dosql.errors import DosqlError
from dosql.sqlite import capture as capture_module
from dosql.sqlite.capture import resume_capture, start_capture
from dosql.sqlite.change_log import Change, Op, Retention, changes_in
from dosql.sqlite.database import Database
from tests.sqlite.conftest import ManualClock, Open
from tests.support.replay import Replica, all_of, comparable

SCHEMA = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT UNIQUE, age REAL);
CREATE TABLE pairs (a, b TEXT, v, PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE notes (body, person REFERENCES people ON DELETE CASCADE ON UPDATE SET NULL);
CREATE TABLE keyed (k TEXT PRIMARY KEY, v);
CREATE TABLE made (id INTEGER PRIMARY KEY, a, twice AS (a || a), kept AS (a || 'k') STORED);
CREATE TABLE journal (entry);
CREATE TABLE torn (body);
CREATE TRIGGER on_person AFTER UPDATE ON people BEGIN
  INSERT INTO journal VALUES (old.name || '>' || new.name);
  DELETE FROM journal WHERE rowid < (SELECT max(rowid) FROM journal) - 2;
END;
CREATE TRIGGER on_made AFTER INSERT ON made BEGIN
  UPDATE made SET a = 'trigger' || new.a WHERE id = new.id;
END;
"""
TABLES = ("people", "pairs", "notes", "keyed", "made", "journal", "torn")


def begin(db: Database, clock: ManualClock, **retention: int) -> None:
    start_capture(db, clock, Retention(**retention), incarnation=1)


def captured(db: Database, after: int = 0) -> list[Change]:
    assert db.capture is not None
    changes: list[Change] = []
    while rows := db.capture.log.read(after, 100_000):
        changes += changes_in(rows, after)
        after = changes[-1].seq
    return changes


def brief(db: Database, after: int = 0) -> list[tuple[Any, ...]]:
    return [
        (each.op.name, each.table, each.pk, each.old, each.new)
        for each in captured(db, after)
        if each.op is not Op.SCHEMA
    ]


@pytest.fixture
def db(open_database: Open, clock: ManualClock) -> Database:
    db = open_database()
    begin(db, clock)
    db.exec(SCHEMA)
    return db


def test_a_change_tells_the_row_before_and_after(db: Database) -> None:
    start = captured(db)[-1].seq
    db.run("INSERT INTO people VALUES (1, 'ada', 36)")
    db.run("UPDATE people SET age = 37 WHERE id = 1")
    db.run("DELETE FROM journal")
    db.run("DELETE FROM people")
    assert brief(db, start) == [
        ("INSERT", "people", {"id": 1}, None, [1, "ada", 36.0]),
        ("UPDATE", "people", {"id": 1}, [1, "ada", 36.0], [1, "ada", 37.0]),
        ("INSERT", "journal", {"rowid": 1}, None, ["ada>ada"]),
        ("DELETE", "journal", {"rowid": 1}, ["ada>ada"], None),
        ("DELETE", "people", {"id": 1}, [1, "ada", 37.0], None),
    ]
    numbers = [each.seq for each in captured(db)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_table_is_emptied_row_by_row_also_by_a_statement_prepared_before(
    open_database: Open, clock: ManualClock
) -> None:
    """Without a hook SQLite truncates; a statement it has cached must not go on to."""
    db = open_database()
    db.run("CREATE TABLE t (a)")
    db.run("INSERT INTO t VALUES (1), (2)")
    db.run("DELETE FROM t")
    begin(db, clock)
    db.run("INSERT INTO t VALUES (1), (2)")
    db.run("DELETE FROM t")
    assert [each[0] for each in brief(db)] == ["INSERT", "INSERT", "DELETE", "DELETE"]


def test_a_new_key_is_the_end_of_a_row_and_the_beginning_of_another(db: Database) -> None:
    db.run("INSERT INTO pairs VALUES (1, 'x', 'v')")
    db.run("INSERT INTO notes VALUES ('n', NULL)")
    start = captured(db)[-1].seq
    db.run("UPDATE pairs SET b = 'y'")
    db.run("UPDATE notes SET rowid = 9")
    assert brief(db, start) == [
        ("DELETE", "pairs", {"b": "x", "a": 1}, [1, "x", "v"], None),
        ("INSERT", "pairs", {"b": "y", "a": 1}, None, [1, "y", "v"]),
        ("DELETE", "notes", {"rowid": 1}, ["n", None], None),
        ("INSERT", "notes", {"rowid": 9}, None, ["n", None]),
    ]


def test_replace_deletes_and_upsert_updates(db: Database) -> None:
    db.run("INSERT INTO people VALUES (1, 'ada', 1), (2, 'bob', 2)")
    start = captured(db)[-1].seq
    db.run("INSERT OR REPLACE INTO people VALUES (1, 'bob', 3)")
    db.query("INSERT INTO keyed VALUES ('k', 1) RETURNING v")
    db.run("INSERT INTO keyed VALUES ('k', 1) ON CONFLICT DO UPDATE SET v = 2")
    assert [(op, pk) for op, _, pk, _, _ in brief(db, start)] == [
        ("DELETE", {"id": 1}),
        ("DELETE", {"id": 2}),
        ("INSERT", {"id": 1}),
        ("INSERT", {"k": "k"}),
        ("UPDATE", {"k": "k"}),
    ]


def test_cascades_and_triggers_are_told_too(db: Database) -> None:
    db.run("INSERT INTO people VALUES (1, 'ada', 1)")
    db.run("INSERT INTO notes VALUES ('n', 1)")
    start = captured(db)[-1].seq
    db.run("DELETE FROM people")
    assert [(op, table) for op, table, *_ in brief(db, start)] == [
        ("DELETE", "people"),
        ("DELETE", "notes"),
    ]


def test_rows_that_sqlite_does_not_tell_are_read(db: Database) -> None:
    """A VIRTUAL column, and text that is none, which a trigger then changes once more."""
    start = captured(db)[-1].seq
    db.run("INSERT INTO made (id, a) VALUES (1, 'x')")
    db.run("INSERT INTO notes VALUES (CAST(x'ff41' AS TEXT), NULL)")
    db.run("UPDATE made SET id = 7")
    assert brief(db, start) == [
        ("INSERT", "made", {"id": 1}, None, [1, "x"]),
        ("UPDATE", "made", {"id": 1}, [1, "x"], [1, "triggerx"]),
        ("INSERT", "notes", {"rowid": 1}, None, [b"\xffA", None]),
        ("DELETE", "made", {"id": 1}, [1, "triggerx"], None),
        ("INSERT", "made", {"id": 7}, None, [7, "triggerx"]),
    ]


def test_nothing_undone_is_told(db: Database) -> None:
    db.run("INSERT INTO people VALUES (1, 'ada', 1)")
    start = captured(db)[-1].seq
    with pytest.raises(DosqlError):
        db.run("INSERT INTO people VALUES (2, 'bob', 1), (3, 'ada', 1)")
    db.begin()
    db.run("INSERT INTO people VALUES (4, 'kept', 1)")
    with contextlib.suppress(ZeroDivisionError), db.savepoint():
        db.run("INSERT INTO people VALUES (5, 'undone', 1)")
        raise ZeroDivisionError
    for verb in ("INSERT", "INSERT OR FAIL"):
        with pytest.raises(DosqlError):
            db.run(f"{verb} INTO people VALUES (6, 'bob', 1), (7, 'ada', 1)")
    db.run("INSERT INTO people VALUES (8, 'kept too', 1)")
    db.commit()
    db.begin()
    db.run("DELETE FROM people")
    db.rollback()
    with pytest.raises(DosqlError):
        db.run("INSERT OR ROLLBACK INTO people VALUES (9, 'bob', 1), (10, 'ada', 1)")
    assert [new for *_, new in brief(db, start)] == [[4, "kept", 1.0], [8, "kept too", 1.0]]


def test_a_commit_that_fails_leaves_no_change(db: Database) -> None:
    db.exec("CREATE TABLE child (p REFERENCES people DEFERRABLE INITIALLY DEFERRED)")
    start = captured(db)[-1].seq
    with pytest.raises(DosqlError):
        db.run("INSERT INTO child VALUES (99)")
    db.run("INSERT INTO people VALUES (1, 'ada', 1)")
    assert [(each.seq, each.table) for each in captured(db, start)] == [(start + 1, "people")]


def test_the_servers_own_tables_are_no_news(db: Database) -> None:
    start = captured(db)[-1].seq
    db.exec("CREATE TABLE sessions (a); CREATE TABLE rate_limits (a)")
    db.internal_run("CREATE TABLE _dosql_other (a)")
    with db.transaction():
        db.internal_run("INSERT INTO sessions VALUES (1)")
        db.internal_run("INSERT INTO _dosql_other VALUES (1)")
    assert captured(db, start) == []


def test_a_script_tells_each_row_with_the_columns_of_its_moment(db: Database) -> None:
    start = captured(db)[-1].seq
    db.exec(
        "CREATE TABLE t (a); INSERT INTO t VALUES (1); ALTER TABLE t ADD COLUMN b REAL DEFAULT 4;"
        "UPDATE t SET a = 2; ALTER TABLE t DROP COLUMN a; DELETE FROM t; DROP TABLE t;"
        "CREATE TABLE copy AS SELECT id FROM people"
    )
    changes = captured(db, start)
    assert [(each.op.name, each.columns) for each in changes] == [
        ("SCHEMA", ()),
        ("INSERT", ("a",)),
        ("SCHEMA", ()),
        ("UPDATE", ("a", "b")),
        ("SCHEMA", ()),
        ("DELETE", ("b",)),
        ("SCHEMA", ()),
        ("SCHEMA", ()),
    ]
    assert changes[3].old == [1, 4.0]
    assert {type(value) for value in changes[3].old or ()} == {int, float}


def test_a_table_made_from_a_query_is_told_row_by_row(db: Database) -> None:
    db.run("INSERT INTO people VALUES (1, 'ada', 1), (2, 'bob', 2)")
    start = captured(db)[-1].seq
    db.run("CREATE TABLE copy AS SELECT name FROM people ORDER BY name")
    changes = captured(db, start)
    assert changes[0].text == "CREATE TABLE copy(name TEXT)"
    assert [each.new for each in changes[1:]] == [["ada"], ["bob"]]


def test_more_than_can_be_told_is_a_reset(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "CHANGES_TRANSACTION_BYTES_MAX", 10_000)
    start = captured(db)[-1].seq
    numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
    db.run(f"{numbers} INSERT INTO notes SELECT 'text', NULL FROM n")
    db.run("INSERT INTO keyed VALUES (1, 1)")
    assert [each.op for each in captured(db, start)] == [Op.RESET, Op.INSERT]


def test_old_changes_are_forgotten_by_count_age_and_size(
    open_database: Open, clock: ManualClock
) -> None:
    for retention in ({"count": 10}, {"age_ms": 9_000}, {"size_bytes": 250}):
        db = open_database(f"{next(iter(retention))}.db")
        begin(db, clock, **retention)
        db.run("CREATE TABLE t (a)")
        for number in range(50):
            clock.seconds += 1
            db.run("INSERT INTO t VALUES (?)", (number,))
        assert db.capture is not None
        log = db.capture.log
        changes = captured(db, log.floor)
        assert [each.seq for each in changes] == list(range(log.floor + 1, 52)), retention
        assert 5 <= len(changes) <= 12, retention
        assert len(db.internal_query("SELECT 1 FROM _dosql_changes")) == len(changes)


def test_a_slot_holds_changes_back_up_to_a_limit(open_database: Open, clock: ManualClock) -> None:
    from dosql.host.change_slots import acknowledge, create_slot

    db = open_database()
    begin(db, clock, count=10)
    db.run("CREATE TABLE t (a)")
    assert db.capture is not None
    log = db.capture.log
    create_slot(db, log, "copy", 0, 0)

    def insert(count: int) -> None:
        for number in range(count):
            db.run("INSERT INTO t VALUES (?)", (number,))

    insert(35)
    assert log.floor == 0
    insert(20)
    assert log.floor == log.last - 40, "four times as much as without"
    acknowledge(db, log, "copy", log.last, 0)
    acknowledged = log.last
    insert(20)
    assert log.floor == acknowledged


def test_capture_goes_on_after_a_wake(open_database: Open, clock: ManualClock) -> None:
    db = open_database()
    begin(db, clock)
    db.run("CREATE TABLE t (a)")
    db.close()
    db = open_database()
    resume_capture(db, clock, Retention(), incarnation=1)
    db.run("INSERT INTO t VALUES (1)")
    assert [each.seq for each in captured(db)] == [1, 2]


def test_another_life_begins_with_numbers_that_none_had(
    open_database: Open, clock: ManualClock
) -> None:
    """A copy of the database, imported or branched off, is not what its followers followed."""
    db = open_database()
    begin(db, clock)
    db.run("CREATE TABLE t (a)")
    db.close()
    clock.seconds = 1_000.0
    db = open_database()
    resume_capture(db, clock, Retention(), incarnation=2)
    assert db.capture is not None
    assert db.capture.log.floor == db.capture.log.last > 100_000
    db.run("INSERT INTO t VALUES (1)")
    assert [each.seq for each in captured(db)] == [db.capture.log.last]


def test_capture_that_begins_among_rows_begins_at_one(
    open_database: Open, clock: ManualClock
) -> None:
    db = open_database()
    db.exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    begin(db, clock)
    assert db.capture is not None
    assert (db.capture.log.floor, db.capture.log.last) == (1, 1)


# --- anything at all --------------------------------------------------------------------------

_COLUMNS = "SELECT name FROM pragma_table_xinfo(?)"
VALUES = st.one_of(
    st.none(),
    st.integers(0, 5),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text("ab\U0001f600", max_size=3),
    st.binary(max_size=3),
)
SMALL = st.integers(0, 4)
STATEMENTS = st.one_of(
    *(
        st.tuples(st.just(sql), st.tuples(*kinds))
        for sql, kinds in (
            ("INSERT INTO people VALUES (?, ?, ?)", (SMALL, VALUES, VALUES)),
            ("INSERT OR REPLACE INTO people VALUES (?, ?, ?)", (SMALL, SMALL, VALUES)),
            ("INSERT OR IGNORE INTO people VALUES (?, ?, ?)", (SMALL, SMALL, VALUES)),
            ("UPDATE people SET name = ?, id = id + ?", (VALUES, SMALL)),
            ("UPDATE OR REPLACE people SET name = ? WHERE id > ?", (SMALL, SMALL)),
            ("UPDATE OR FAIL people SET name = ? WHERE id > ?", (SMALL, SMALL)),
            ("DELETE FROM people WHERE id < ?", (SMALL,)),
            ("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", (SMALL, SMALL, VALUES)),
            ("UPDATE OR IGNORE pairs SET a = ?, v = ? WHERE b > ?", (SMALL, VALUES, SMALL)),
            ("INSERT INTO notes VALUES (?, ?)", (VALUES, SMALL)),
            ("INSERT INTO torn VALUES (CAST(? AS TEXT))", (st.binary(max_size=3),)),
            ("UPDATE torn SET rowid = rowid + ?", (SMALL,)),
            ("UPDATE notes SET rowid = rowid + ?, body = ?", (SMALL, VALUES)),
            ("DELETE FROM notes", ()),
            ("INSERT OR REPLACE INTO keyed VALUES (?, ?)", (st.one_of(st.none(), SMALL), VALUES)),
            ("UPDATE keyed SET k = ? WHERE v IS ?", (st.one_of(st.none(), SMALL), VALUES)),
            ("INSERT OR REPLACE INTO made (id, a) VALUES (?, ?)", (SMALL, VALUES)),
            ("UPDATE OR IGNORE made SET id = ?, a = ?", (SMALL, VALUES)),
            ("INSERT INTO made (a) SELECT a FROM made WHERE id < ?", (SMALL,)),
        )
    )
)
BLOCKS = st.lists(
    st.tuples(st.sampled_from(["plain", "batch", "undone", "script"]), st.lists(STATEMENTS)),
    max_size=8,
)


@contextlib.contextmanager
def block(db: Database, kind: str) -> Iterator[None]:
    if kind == "plain":
        yield
        return
    with contextlib.suppress(ZeroDivisionError), db.savepoint():
        yield
        if kind == "undone":
            raise ZeroDivisionError


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blocks=BLOCKS)
def test_a_replica_fed_with_the_changes_has_the_same_rows(
    open_database: Open, clock: ManualClock, blocks: list[tuple[str, list[Any]]]
) -> None:
    db = open_database(f"{id(blocks)}-{clock.now_ms()}.db")
    clock.seconds += 1
    begin(db, clock)
    db.exec(SCHEMA)
    for number, (kind, statements) in enumerate(blocks):
        if kind == "script":
            db.exec(f"ALTER TABLE keyed ADD COLUMN c{number} REAL DEFAULT {number}")
        with block(db, kind):
            for sql, params in statements:
                with contextlib.suppress(DosqlError):
                    db.run(sql, params)
    replica = Replica()
    replica.apply(captured(db))
    for table in TABLES:
        names = [str(name) for (name,) in db.query(_COLUMNS, (table,)).rows]
        sql = all_of(table, tuple(names))
        assert replica.rows(sql) == comparable(db.query(sql).rows)
    db.close()
