"""A grammar of SQLite's SQL: random statements, most of them valid, some wrong, some forbidden."""

from __future__ import annotations

import random
from functools import cache

import apsw

from dosql.sqlite.allowed import FUNCTIONS

_TABLES = ("t", "u", "w")
_COLUMNS = {"t": ("a", "b", "c"), "u": ("d", "e"), "w": ("f",), "v": ("a", "b", "d")}
_RESERVED = ("_dosql_s", "sessions", "rate_limits", "_DOSQL_S", "Sessions")
_STRINGS = (
    "''",
    "'a'",
    "'B'",
    "'12'",
    "'1.5x'",
    "'é'",
    "x''",
    "x'6162'",
    "' b '",
    "'%'",
    "'[1,2]'",
)
_NUMBERS = (
    "0",
    "1",
    "-1",
    "2.5",
    "1e3",
    "9223372036854775807",
    "-9223372036854775808",
    "NULL",
    "0.1",
)
_BINARY = [
    "+",
    "-",
    "*",
    "/",
    "%",
    "||",
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "AND",
    "OR",
    "IS",
    "LIKE",
    "GLOB",
    "&",
    "|",
    "<<",
    ">>",
    "->",
    "->>",
]
# Results that depend on the time, on chance, or on the connection cannot be compared.
_VOLATILE = {
    "changes", "current_date", "current_time", "current_timestamp", "date", "datetime",
    "julianday", "last_insert_rowid", "random", "randomblob", "strftime", "time", "timediff",
    "total_changes", "unixepoch", "bm25", "highlight", "match", "rtreecheck", "json_each",
    "json_tree", "->", "->>", "rank", "row_number", "dense_rank", "percent_rank", "cume_dist",
    "ntile", "lag", "lead", "first_value", "last_value", "nth_value",
}  # fmt: skip
_CALLED = sorted(FUNCTIONS - _VOLATILE)
_FORBIDDEN = ("load_extension", "sqlite_version", "json_patch", "readfile", "snippet")


class Grammar:
    """One stream of statements; the same seed gives the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._columns = _COLUMNS["t"]

    def statement(self) -> str:
        """One statement."""
        pick = self._random.random()
        if pick < 0.62:
            return self._select(0) + self._tail()
        if pick < 0.74:
            return self._insert()
        if pick < 0.82:
            table = self._table()
            return f"UPDATE {table} SET {self._column()} = {self._expression(2)}{self._where()}"
        if pick < 0.87:
            return f"DELETE FROM {self._table()}{self._where()}"
        if pick < 0.95:
            return self._schema()
        return self._mangled()

    def _one(self, *choices: str) -> str:
        return self._random.choice(choices)

    def _table(self) -> str:
        if self._random.random() < 0.02:
            return self._one(*_RESERVED)
        table = self._one(*_TABLES, "v")
        self._columns = _COLUMNS[table]
        return table

    def _column(self) -> str:
        return (
            self._one("a", "f", "x") if self._random.random() < 0.03 else self._one(*self._columns)
        )

    def _select(self, depth: int) -> str:
        table = self._table()
        columns = ", ".join(self._expression(3) for _ in range(self._random.randint(1, 3)))
        source = f" FROM {table}" if self._random.random() < 0.8 else ""
        if source and self._random.random() < 0.2:
            source += self._one(" JOIN ", " LEFT JOIN ", ", ") + "(SELECT 1 AS y)"
        if depth < 2 and self._random.random() < 0.1:
            source = f" FROM (SELECT * FROM {table} ORDER BY 1 LIMIT 2)"
        sql = f"SELECT {self._one('', '', 'DISTINCT ')}{columns}{source}{self._where()}"
        if source and self._random.random() < 0.2:
            sql += f" GROUP BY {self._expression(1)}"
            if self._random.random() < 0.3:
                sql += f" HAVING {self._expression(2)}"
        if depth < 2 and self._random.random() < 0.12:
            sql += self._one(" UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT ")
            sql += self._select(depth + 1)
        if depth == 0 and self._random.random() < 0.08:
            sql = f"WITH q AS ({self._select(1)}) {sql}"
        return sql

    def _tail(self) -> str:
        tail = f" ORDER BY {self._random.randint(1, 2)}" if self._random.random() < 0.3 else ""
        return tail + (" LIMIT 50" if self._random.random() < 0.2 and tail else "")

    def _where(self) -> str:
        return f" WHERE {self._expression(2)}" if self._random.random() < 0.5 else ""

    def _insert(self) -> str:
        table = self._table()
        columns = _COLUMNS.get(table, ("a",))
        verb = self._one("INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR ROLLBACK")
        if self._random.random() < 0.2:
            return f"{verb} INTO {table} {self._select(1)} LIMIT 3"
        values = ", ".join(self._expression(2, constant=True) for _ in columns)
        tail = self._one("", "", " ON CONFLICT DO NOTHING", " RETURNING *")
        return f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({values}){tail}"

    def _schema(self) -> str:
        name = self._one("n1", "n2", *_RESERVED) if self._random.random() < 0.3 else "n1"
        value = self._expression(2, constant=True)
        pragma = self._one("journal_mode", "foreign_keys", "page_count", "writable_schema = 1")
        after = f"AFTER INSERT ON {self._table()}"
        return self._one(
            f"CREATE TABLE IF NOT EXISTS {name} (x, y DEFAULT ({value}))",
            f"CREATE TABLE {name} AS {self._select(1)} LIMIT 3",
            f"CREATE VIEW IF NOT EXISTS {name} AS {self._select(0)}",
            f"CREATE INDEX IF NOT EXISTS i1 ON {self._table()} ({self._column()})",
            f"CREATE TRIGGER IF NOT EXISTS r1 {after} BEGIN {self._insert()}; END",
            f"CREATE VIRTUAL TABLE IF NOT EXISTS g1 USING fts5(x, content='{name}')",
            "DROP TABLE IF EXISTS n1",
            "DROP VIEW IF EXISTS n1",
            "DROP TRIGGER IF EXISTS r1",
            f"ALTER TABLE n1 RENAME TO {name}",
            f"ALTER TABLE {self._table()} ADD COLUMN {self._one('x', 'z')}",
            f"PRAGMA table_info({name})",
            f"PRAGMA {pragma}",
            self._one("BEGIN", "COMMIT", "SAVEPOINT s", "VACUUM", "ATTACH 'x' AS x", "ANALYZE"),
        )

    def _mangled(self) -> str:
        words = self._select(0).split(" ")
        for _ in range(self._random.randint(1, 3)):
            at = self._random.randrange(len(words))
            if self._random.random() < 0.5:
                words[at] = self._one(
                    "(", ")", ",", ";", "'", "--", "/*", "\0", "SELECT", "?", ":p"
                )
            else:
                words.insert(at, self._one(*words))
        return " ".join(words)

    def _call(self, first: str, depth: int, constant: bool) -> str:
        name = self._one(*(_FORBIDDEN if self._random.random() < 0.01 else _CALLED))
        fewest, most = _arities().get(name, (0, 2))
        count = self._random.randint(fewest, most) if self._random.random() < 0.98 else 4
        given = [self._expression(depth - 1, constant=constant) for _ in range(count - 1)]
        return f"{name}({', '.join([first, *given] if count else [])})"

    def _expression(self, depth: int, *, constant: bool = False) -> str:
        pick = self._random.random()
        if depth == 0 or pick < 0.3:
            leaf = self._random.random()
            if leaf < 0.5 and not constant:
                return self._column()
            return self._one(*_STRINGS) if leaf < 0.75 else self._one(*_NUMBERS)
        left = self._expression(depth - 1, constant=constant)
        if pick < 0.55:
            right = self._expression(depth - 1, constant=constant)
            return f"({left} {self._one(*_BINARY)} {right})"
        if pick < 0.85:
            return self._call(left, depth, constant)
        if pick < 0.9:
            return f"CAST({left} AS {self._one('TEXT', 'INTEGER', 'REAL', 'BLOB', 'NUMERIC')})"
        if pick < 0.94:
            return f"CASE WHEN {left} THEN {self._one(*_NUMBERS)} ELSE {self._one(*_STRINGS)} END"
        if pick < 0.97 and not constant:
            return f"(SELECT {left} FROM {self._table()} LIMIT 1)"
        return f"({left} IS NOT NULL)"


@cache
def _arities() -> dict[str, tuple[int, int]]:
    """Fewest and most arguments worth giving, by function."""
    found: dict[str, tuple[int, int]] = {}
    connection = apsw.Connection(":memory:")
    for name, count in connection.execute("SELECT name, narg FROM pragma_function_list"):
        fewest, most = (count, count) if count >= 0 else (-1 - count if count < -1 else 1, 3)
        before = found.get(name, (fewest, most))
        found[name] = min(before[0], fewest), max(before[1], most)
    connection.close()
    return found
