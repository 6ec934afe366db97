"""All or nothing: batches, transactions, savepoints, and what SQLite does behind our back."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest

from dosql.errors import (
    BudgetError,
    ConflictError,
    ConstraintError,
    DosqlError,
    ForbiddenError,
    SqlError,
    UnavailableError,
)
from dosql.sqlite.database import Database, Rows, RunResult
from dosql.wire.statements import Operation

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def run(sql: str, *params: Any) -> Operation:
    return Operation("run", sql, list(params))


def bodies(db: Database) -> list[Any]:
    return [row[0] for row in db.query("SELECT body FROM notes ORDER BY id").rows]


def test_a_batch_answers_each_operation_in_its_own_way(notes: Database) -> None:
    results = notes.batch(
        [
            run("INSERT INTO notes (body) VALUES (?)", "four"),
            Operation("query", "SELECT body FROM notes WHERE id > ?", [2]),
            Operation("queryOne", "SELECT body FROM notes"),
            Operation("queryOne", "SELECT body FROM notes WHERE id = 99"),
            Operation("run", "DELETE FROM notes WHERE id = last_insert_rowid()"),
        ]
    )
    assert results == [
        RunResult(1, 4),
        Rows(("body",), [("three",), ("four",)]),
        Rows(("body",), [("one",)]),
        Rows(("body",), []),
        RunResult(1, 4),
    ]
    assert not notes.in_transaction


def test_an_empty_batch_does_nothing(notes: Database) -> None:
    assert notes.batch([]) == []
    assert not notes.in_transaction


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (run("INSERT INTO notes (id, body) VALUES (1, 'x')"), ConstraintError),
        (run("nonsense"), SqlError),
        (run("SELECT 1"), DosqlError),
        (Operation("query", "DELETE FROM notes"), DosqlError),
        (run("DELETE FROM notes; DELETE FROM notes"), DosqlError),
        (run("INSERT INTO notes (body) VALUES (?)"), DosqlError),
        (run("COMMIT"), ForbiddenError),
        (run("INSERT OR ROLLBACK INTO notes (id, body) VALUES (1, 'x')"), ConstraintError),
        (run("INSERT OR FAIL INTO notes (id, body) VALUES (8, 'x'), (1, 'x')"), ConstraintError),
    ],
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_batch_with_one_bad_operation_leaves_nothing(
    notes: Database, bad: Operation, kind: type[DosqlError], index: int
) -> None:
    """Finding 4: what comes after the bad one must not commit by itself either."""
    steps = [run("INSERT INTO notes (body) VALUES (?)", f"new {step}") for step in range(3)]
    steps[index] = bad
    with pytest.raises(kind) as caught:
        notes.batch(steps)
    assert caught.value.index == index
    assert bodies(notes) == ["one", "two", "three"]
    assert not notes.in_transaction
    assert notes.run("INSERT INTO notes (body) VALUES ('after')").changes == 1


def test_a_batch_inside_a_transaction_is_undone_alone(notes: Database) -> None:
    notes.begin()
    notes.run("INSERT INTO notes (body) VALUES ('kept')")
    with pytest.raises(ConstraintError):
        notes.batch([run("DELETE FROM notes"), run("INSERT INTO notes (body) VALUES (NULL)")])
    notes.batch([run("INSERT INTO notes (body) VALUES ('kept too')")])
    notes.commit()
    assert bodies(notes) == ["one", "two", "three", "kept", "kept too"]


def test_a_read_only_batch_refuses_every_write(notes: Database) -> None:
    assert notes.batch([Operation("query", "SELECT 1")], read_only=True)
    for step in (
        run("DELETE FROM notes"),
        Operation("query", "DELETE FROM notes RETURNING id"),
        Operation("queryOne", "DELETE FROM notes RETURNING id"),
    ):
        with pytest.raises(ForbiddenError) as caught:
            notes.batch([Operation("query", "SELECT 1"), step], read_only=True)
        assert (caught.value.code, caught.value.index) == ("read_only", 1)


def test_deferred_foreign_keys_are_checked_at_the_end_of_a_batch(db: Database) -> None:
    db.exec("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id));")
    steps = [
        run("PRAGMA defer_foreign_keys = ON"),
        run("INSERT INTO c VALUES (1)"),
        run("INSERT INTO p VALUES (1)"),
    ]
    db.batch(steps)
    with pytest.raises(ConstraintError) as caught:
        db.batch([steps[0], run("INSERT INTO c VALUES (2)")])
    assert (caught.value.code, caught.value.index) == ("constraint_foreign_key", None)
    assert db.query("SELECT p FROM c").rows == [(1,)]
    with pytest.raises(ConstraintError) as caught:
        db.batch([*steps[1:2], run("INSERT INTO c VALUES (9)")])
    assert caught.value.index == 1, "the deferral ended with its batch"


@pytest.mark.parametrize(
    "sql", ["INSERT INTO c VALUES (9)", "INSERT INTO c VALUES (9) RETURNING p"]
)
def test_a_lone_write_that_violates_a_deferred_key_is_undone(db: Database, sql: str) -> None:
    db.exec(
        "CREATE TABLE p (id INTEGER PRIMARY KEY);"
        "CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED);"
    )
    with pytest.raises(ConstraintError) as caught:
        db.run(sql)
    assert caught.value.code == "constraint_foreign_key"
    assert not db.in_transaction
    assert db.query("SELECT count(*) FROM c").rows == [(0,)]


def test_a_commit_that_fails_rolls_back(db: Database) -> None:
    db.exec(
        "CREATE TABLE p (id INTEGER PRIMARY KEY);"
        "CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED);"
    )
    db.begin()
    db.run("INSERT INTO c VALUES (9)")
    with pytest.raises(ConstraintError):
        db.commit()
    assert not db.in_transaction
    assert db.query("SELECT count(*) FROM c").rows == [(0,)]


@pytest.mark.parametrize(
    "make_it_vanish",
    [
        "INSERT OR ROLLBACK INTO notes (id, body) VALUES (1, 'x')",
        "INSERT OR ROLLBACK INTO notes (id, body) VALUES (1, 'x') RETURNING id",
        "DELETE FROM notes",
    ],
)
def test_a_transaction_that_vanished_refuses_everything_until_it_is_rolled_back(
    notes: Database, make_it_vanish: str
) -> None:
    """Finding 4: the next statement would otherwise commit on its own."""
    notes.exec(
        "CREATE TRIGGER t BEFORE DELETE ON notes BEGIN SELECT RAISE(ROLLBACK, 'no deleting'); END"
    )
    notes.begin()
    notes.run("INSERT INTO notes (body) VALUES ('lost')")
    with pytest.raises(ConstraintError):
        notes.run(make_it_vanish)
    assert not notes.in_transaction
    calls: list[Callable[[], object]] = [
        lambda: notes.run("INSERT INTO notes (body) VALUES ('stray')"),
        lambda: notes.query("INSERT INTO notes (body) VALUES ('stray') RETURNING id"),
        lambda: notes.query("SELECT 1"),
        lambda: notes.query_one("SELECT 1"),
        lambda: notes.batch([run("INSERT INTO notes (body) VALUES ('stray')")]),
        lambda: notes.exec("INSERT INTO notes (body) VALUES ('stray')"),
        lambda: notes.internal_run("INSERT INTO notes (body) VALUES ('stray')"),
        notes.begin,
        notes.commit,
    ]
    for call in calls:
        with pytest.raises(ConflictError) as caught:
            call()
        assert caught.value.code == "transaction_aborted"
    notes.rollback()
    assert bodies(notes) == ["one", "two", "three"]
    notes.run("INSERT INTO notes (body) VALUES ('after')")


def test_a_transaction_that_vanished_unnoticed_is_not_committed(notes: Database) -> None:
    def lose_it() -> None:
        with notes.transaction():
            notes.run("INSERT INTO notes (body) VALUES ('lost')")
            with suppress(ConstraintError):
                notes.run("INSERT OR ROLLBACK INTO notes (id, body) VALUES (1, 'x')")

    with pytest.raises(ConflictError) as caught:
        lose_it()
    assert caught.value.code == "batch_aborted"
    assert bodies(notes) == ["one", "two", "three"]
    assert notes.run("DELETE FROM notes").changes == 3


def test_a_statement_that_fails_is_undone_alone_inside_a_transaction(notes: Database) -> None:
    notes.begin()
    notes.run("INSERT INTO notes (body) VALUES ('kept')")
    with pytest.raises(ConstraintError):
        notes.run("INSERT INTO notes (body) VALUES ('gone'), ('one')")
    with pytest.raises(ConstraintError):
        notes.query("INSERT INTO notes (body) VALUES ('gone'), ('one') RETURNING id")
    assert notes.in_transaction
    notes.commit()
    assert bodies(notes) == ["one", "two", "three", "kept"]


def test_a_transaction_commits_at_its_end_and_rolls_back_on_any_exception(notes: Database) -> None:
    with notes.transaction():
        notes.run("INSERT INTO notes (body) VALUES ('in')")
        assert notes.in_transaction
    with suppress(KeyboardInterrupt), notes.transaction():
        notes.run("DELETE FROM notes")
        raise KeyboardInterrupt
    assert bodies(notes) == ["one", "two", "three", "in"]
    assert not notes.in_transaction


def test_savepoints_nest(notes: Database) -> None:
    with notes.transaction():
        notes.run("INSERT INTO notes (body) VALUES ('a')")
        with suppress(RuntimeError), notes.savepoint():
            notes.run("INSERT INTO notes (body) VALUES ('b')")
            with notes.savepoint():
                notes.run("INSERT INTO notes (body) VALUES ('c')")
            raise RuntimeError
        with notes.savepoint():
            notes.run("INSERT INTO notes (body) VALUES ('d')")
    assert bodies(notes) == ["one", "two", "three", "a", "d"]


def test_a_savepoint_that_is_given_up_leaves_a_closed_connection_alone(notes: Database) -> None:
    """Whenever its memory is freed: an exception there could be caught by nobody."""
    point = notes.savepoint()
    point.__enter__()
    notes.close()
    raised: list[object] = []
    with patch("sys.unraisablehook", raised.append):
        del point
        gc.collect()
    assert raised == []


def test_a_savepoint_alone_is_a_transaction(notes: Database) -> None:
    with notes.savepoint():
        notes.run("INSERT INTO notes (body) VALUES ('a')")
    with suppress(RuntimeError), notes.savepoint():
        notes.run("INSERT INTO notes (body) VALUES ('b')")
        raise RuntimeError
    assert bodies(notes) == ["one", "two", "three", "a"]


def test_begin_refuses_a_second_one_and_rollback_is_idempotent(notes: Database) -> None:
    notes.rollback()
    notes.begin()
    with pytest.raises(ConflictError) as caught:
        notes.begin()
    assert caught.value.code == "transaction_open"
    notes.rollback()
    notes.rollback()
    with pytest.raises(ConflictError) as caught:
        notes.commit()
    assert caught.value.code == "transaction_aborted"


def test_the_last_row_id_starts_at_zero_in_each_transaction(notes: Database) -> None:
    assert notes.run("UPDATE notes SET body = body || '.'").last_insert_rowid == 0
    notes.begin()
    assert notes.run("UPDATE notes SET body = body || '.'").last_insert_rowid == 0
    assert notes.run("INSERT INTO notes (body) VALUES ('a')").last_insert_rowid == 4
    notes.internal_run("CREATE TABLE _dosql_x (a)")
    notes.internal_run("INSERT INTO _dosql_x VALUES (1), (2), (3), (4), (5), (6)")
    assert notes.query("SELECT last_insert_rowid()").rows == [(4,)]
    notes.commit()


def test_a_script_applies_all_of_its_statements_or_none(notes: Database) -> None:
    notes.exec("CREATE TABLE a (x); INSERT INTO a VALUES (1); SELECT * FROM a; -- end\n")
    with pytest.raises(SqlError, match="no such table: nowhere"):
        notes.exec("CREATE TABLE b (x); INSERT INTO nowhere VALUES (1); CREATE TABLE c (x)")
    names = [
        row[0] for row in notes.query("SELECT name FROM sqlite_schema WHERE type='table'").rows
    ]
    assert names == ["notes", "a"]


@pytest.mark.parametrize("sql", ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT x", "END"])
def test_a_script_must_leave_transactions_out(notes: Database, sql: str) -> None:
    with pytest.raises(ForbiddenError) as caught:
        notes.exec(f"DELETE FROM notes; {sql}; DELETE FROM notes")
    assert caught.value.code == "transaction_forbidden"
    assert len(bodies(notes)) == 3


def test_a_script_whose_transaction_vanishes_stops_there(notes: Database) -> None:
    script = (
        "INSERT INTO notes (body) VALUES ('a');"
        "INSERT OR ROLLBACK INTO notes (id, body) VALUES (1, 'x');"
        "INSERT INTO notes (body) VALUES ('stray')"
    )
    with pytest.raises(ConstraintError):
        notes.exec(script)
    assert bodies(notes) == ["one", "two", "three"]


def test_a_script_may_be_longer_than_a_statement_of_a_request(notes: Database) -> None:
    notes.exec("".join(f"INSERT INTO notes (body) VALUES ('{n:0100}');" for n in range(2000)))
    assert len(bodies(notes)) == 2003
    with pytest.raises(DosqlError):
        notes.query("SELECT 1" + " " * 200_000)


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS,
        f"SELECT ({ENDLESS})",
        "SELECT count(*) FROM big a, big b, big c, big d",
        "SELECT a.x FROM big a, big b, big c, big d ORDER BY a.x + b.x + c.x",
    ],
)
def test_a_statement_stops_at_its_deadline(db: Database, clock: Any, sql: str) -> None:
    """The clock moves one second at each look, so no real time passes."""
    db.exec("CREATE TABLE big (x); INSERT INTO big SELECT value FROM json_each('[1,2,3,4,5]')")
    db.exec("INSERT INTO big SELECT a.x FROM big a, big b; INSERT INTO big SELECT x FROM big")
    db.set_deadline(10)
    clock.step = 1
    for call in (db.query, db.query_one):
        with pytest.raises(BudgetError) as caught:
            call(sql)
        assert (caught.value.code, caught.value.sqlite_code) == (
            "query_timeout",
            "SQLITE_INTERRUPT",
        )
    db.set_deadline(None)
    assert db.query("SELECT 1").rows == [(1,)]


@pytest.mark.parametrize("returning", ["", " RETURNING body"])
def test_a_write_stopped_at_its_deadline_leaves_nothing(
    notes: Database, clock: Any, returning: str
) -> None:
    write = f"UPDATE notes SET body = ({ENDLESS}){returning}"
    clock.step = 1
    notes.set_deadline(10)
    with pytest.raises(BudgetError):
        notes.run(write)
    notes.set_deadline(None)
    assert bodies(notes) == ["one", "two", "three"]
    assert not notes.in_transaction


def test_a_write_stopped_inside_a_transaction_ends_it(notes: Database, clock: Any) -> None:
    """Finding 4 again: SQLite rolls back the whole transaction on an interrupted write."""
    notes.begin()
    notes.run("INSERT INTO notes (body) VALUES ('lost')")
    clock.step = 1
    notes.set_deadline(10)
    with pytest.raises(BudgetError):
        notes.run(f"UPDATE notes SET body = ({ENDLESS})")
    notes.set_deadline(None)
    with pytest.raises(ConflictError):
        notes.run("INSERT INTO notes (body) VALUES ('stray')")
    notes.rollback()
    assert bodies(notes) == ["one", "two", "three"]


def test_a_read_stopped_inside_a_transaction_does_not_end_it(notes: Database, clock: Any) -> None:
    notes.begin()
    notes.run("INSERT INTO notes (body) VALUES ('kept')")
    clock.step = 1
    notes.set_deadline(10)
    with pytest.raises(BudgetError):
        notes.query(ENDLESS)
    notes.set_deadline(None)
    notes.commit()
    assert bodies(notes)[-1] == "kept"


def test_a_batch_of_quick_statements_stops_at_the_deadline_too(notes: Database, clock: Any) -> None:
    clock.step = 1
    notes.set_deadline(5)
    with pytest.raises(BudgetError) as caught:
        notes.batch([run("INSERT INTO notes (body) VALUES (?)", str(n)) for n in range(50)])
    assert caught.value.index is not None
    assert 0 < caught.value.index < 10
    assert len(bodies(notes)) == 3


def test_a_statement_can_be_interrupted_from_another_thread(db: Database, clock: Any) -> None:
    """The interrupt is sent again until the statement has started and ended."""
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.001):
            db.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(UnavailableError) as caught:
            db.query(ENDLESS)
    finally:
        ended.set()
        thread.join()
    assert caught.value.code == "interrupted"
    assert db.broken is None


def test_a_rollback_past_the_deadline_is_never_interrupted(notes: Database) -> None:
    """SQLite counts a statement's steps over all its runs: any of these could be the one."""
    for _ in range(3_000):
        notes.set_deadline(None)
        notes.begin()
        notes.set_deadline(-1)
        notes.rollback()
        assert not notes.in_transaction
    for _ in range(1_000):
        notes.set_deadline(None)
        notes.begin()
        notes.run("UPDATE notes SET body = 'x' WHERE id = 1")
        notes.set_deadline(-1)
        notes.commit()
