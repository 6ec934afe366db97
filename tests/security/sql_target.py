"""The target of the grammar, a process of its own so that a crash of SQLite is seen: the same
statements go to a sandboxed database and to plain SQLite, and one report comes out as JSON.

    python -m tests.security.sql_target FOLDER SEED STATEMENTS
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import apsw

from dosql.clock import SystemClock
from dosql.errors import DosqlError
from dosql.sqlite.database import Database
from tests.security.sql_grammar import Grammar

SECRET = "hunter2-of-the-server"
DEADLINE_S = 1.0
_RESET_EVERY = 250
_MEMORY_BYTES_MAX = 4 * 1024**3
_SCHEMA = (
    "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c)",
    "CREATE TABLE u (d REAL, e BLOB UNIQUE)",
    "CREATE TABLE w (f COLLATE NOCASE)",
    "CREATE VIEW v AS SELECT a, b, d FROM t LEFT JOIN u ON d = a",
    "INSERT INTO t VALUES (1, 'one', 1.5), (2, 'two', NULL), (3, '', x'00ff')",
    "INSERT INTO u VALUES (1, 'x'), (2.5, x'6162'), (NULL, NULL)",
    "INSERT INTO w VALUES ('A'), ('a'), (12), ('é')",
)


class Target:
    """A sandboxed database, and beside it the plain one; both forget now and then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self.reset()

    def reset(self) -> None:
        """Both as in the beginning."""
        if self._number:
            self.db.close()
            self._plain.close()
            for path in self._folder.glob("*.db*"):
                path.unlink()
        self._number += 1
        self._folder.mkdir(exist_ok=True)
        self.db = Database(str(self._folder / f"{self._number}.db"), clock=SystemClock())
        self.db.internal_run("CREATE TABLE _dosql_s (v TEXT PRIMARY KEY)")
        self.db.internal_run("CREATE TABLE sessions (v)")
        self.db.internal_run("CREATE TABLE rate_limits (v)")
        for table in ("_dosql_s", "sessions", "rate_limits"):
            self.db.internal_run(f"INSERT INTO {table} VALUES (?)", [SECRET])
        self._plain = apsw.Connection(":memory:")  # the same SQLite, and nothing of ours
        for sql in _SCHEMA:
            self.db.run(sql)
            self._plain.execute(sql)

    def rows(self, sql: str) -> list[tuple[object, ...]] | str:
        """What the sandboxed one answers: rows, or a code."""
        self.db.set_deadline(DEADLINE_S, on_thread=True)
        try:
            return [tuple(row) for row in self.db.query(sql).rows]
        except DosqlError as error:
            if error.code != "statement_returns_no_rows":
                return error.code
        try:
            self.db.run(sql)
        except DosqlError as error:
            return error.code
        return []

    def plain_rows(self, sql: str) -> list[tuple[object, ...]] | None:
        """What plain SQLite answers to what only reads; None: an error."""
        self._plain.execute("SAVEPOINT before")
        try:
            return self._plain.execute(sql).fetchall()
        except (apsw.Error, UnicodeError):
            return None
        finally:
            self._plain.execute("ROLLBACK TO before")
            self._plain.execute("RELEASE before")

    def check(self) -> None:
        """The server's tables are as they were."""
        self.db.set_deadline(None)
        for table in ("_dosql_s", "sessions", "rate_limits"):
            assert self.db.internal_query(f"SELECT v FROM {table}") == [(SECRET,)], table
        assert not self.db.in_transaction
        assert self.db.broken is None


def run(folder: Path, seed: int, count: int) -> dict[str, object]:
    """Play ``count`` statements."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    grammar, target = Grammar(seed), Target(folder)
    codes: dict[str, int] = {}
    differences: list[object] = []
    leaks: list[str] = []
    compared, slowest = 0, 0.0
    for number in range(count):
        if number % _RESET_EVERY == 0 and number:
            target.check()
            target.reset()
        sql = grammar.statement()
        started = time.perf_counter()
        found = target.rows(sql)
        slowest = max(slowest, time.perf_counter() - started)
        code = found if isinstance(found, str) else "ok"
        codes[code] = codes.get(code, 0) + 1
        if SECRET in repr(found):
            leaks.append(sql)
    # Rows are compared where both hold the same: without the writes.
    (folder / "fresh").mkdir()
    fresh = Target(folder / "fresh")
    reads = Grammar(seed + 1)
    while compared < count // 2:
        sql = reads.statement()
        if not sql.startswith(("SELECT", "WITH")):
            continue
        compared += 1
        found = fresh.rows(sql)
        if isinstance(found, list):
            expected = fresh.plain_rows(sql)
            if expected is not None and _comparable(found) != _comparable(expected):
                differences.append([sql, repr(found)[:300], repr(expected)[:300]])
    fresh.check()
    return {
        "codes": codes,
        "differences": differences,
        "leaks": leaks,
        "compared": compared,
        "slowest": slowest,
    }


def _comparable(rows: list[tuple[object, ...]]) -> list[str]:
    return sorted(repr(row) for row in rows)


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
