"""The attack table: what strangers' SQL may try, by the rows of the threat model, and what each
attempt must meet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dosql.clock import SystemClock
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import apply_migrations, load_migrations

MIGRATIONS = Path(__file__).parents[2] / "migrations"
SECRET = "hunter2-of-the-server"
SESSION = b"s" * 32

OK = (200, None)
FORBIDDEN = (403, "sql_forbidden")
TRANSACTION = (403, "transaction_forbidden")
WRONG = (400, "sql_error")
COMPLEX = (400, "statement_too_complex")
TIMEOUT = (422, "query_timeout")
MEMORY = (422, "memory_limit")
LONG = (413, "value_too_large")
LARGE = (413, "result_too_large")


@dataclass(frozen=True)
class Probe:
    """One attempt."""

    row: str
    """Number and name of its row."""
    sql: str
    expected: tuple[tuple[int, str | None], ...]
    """Statuses with their codes; more than one where it depends on the machine."""
    batch: bool = True
    """It also means the same in a batch."""


SETUP = [
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT UNIQUE)",
    "INSERT INTO notes (body) VALUES ('one'), ('two'), ('three')",
    "CREATE TABLE parents (id INTEGER PRIMARY KEY)",
    "CREATE TABLE children (id INTEGER PRIMARY KEY, parent REFERENCES parents)",
    "INSERT INTO parents VALUES (1)",
    "INSERT INTO children VALUES (1, 1)",
    "CREATE VIRTUAL TABLE found USING fts5(body)",
    "INSERT INTO found VALUES ('needle in hay')",
    "CREATE VIRTUAL TABLE places USING rtree(id, low, high)",
    "CREATE VIEW shows_s AS SELECT * FROM _dosql_s",
    "CREATE VIEW shows_sessions AS SELECT * FROM sessions",
    "CREATE TABLE trap (a)",
    "CREATE TRIGGER reads_s AFTER INSERT ON trap BEGIN INSERT INTO notes (body)"
    " SELECT v FROM _dosql_s; END",
    "CREATE TRIGGER ends_sessions AFTER DELETE ON trap BEGIN DELETE FROM sessions; END",
    "CREATE TABLE logged (a)",
    "CREATE TRIGGER unsafe AFTER INSERT ON logged BEGIN SELECT load_extension('x'); END",
    "CREATE TABLE undone (a)",
    "CREATE TRIGGER undoes BEFORE INSERT ON undone BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
    "CREATE TABLE long (v)",
    "INSERT INTO long VALUES (printf('%.*c', 500000, 'a'))",
    "INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com')",
    "ANALYZE",
]


def make_database(path: Path) -> None:
    """A tenant's database with the server's tables in it, checkpointed and closed."""
    db = Database(str(path), clock=SystemClock())
    apply_migrations(db, load_migrations(MIGRATIONS), now_ms=0)
    db.internal_run("CREATE TABLE _dosql_s (v TEXT PRIMARY KEY)")
    db.internal_run("INSERT INTO _dosql_s VALUES (?)", [SECRET])
    for sql in SETUP:
        db.run(sql)
    db.internal_run(
        "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES (?, 1, 1)", [SESSION]
    )
    db.checkpoint()
    db.close()


def _row(name: str, expected: object, *sqls: str, batch: bool = True) -> list[Probe]:
    codes = expected if isinstance(expected[0], tuple) else (expected,)  # type: ignore[index]
    return [Probe(name, sql, codes, batch) for sql in sqls]  # type: ignore[arg-type]


_N = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n{}) "
_A = "printf('%.*c', {}, '{}')"
_DEEP = "(" * 3000 + "1" + ")" * 3000
_VIEWS = " ".join(f"v{i} AS (SELECT a.* FROM v{i - 1} a, v{i - 1} b)," for i in range(1, 18))

PROBES: list[Probe] = [
    *_row(
        "1 attach",
        FORBIDDEN,
        "ATTACH 'other.db' AS other",
        "ATTACH ':memory:' AS other",
        "ATTACH 'file:other.db?mode=rwc' AS other",
        "ATTACH DATABASE '' AS other",
        "ATTACH 'a' || 'b' AS other",
        "DETACH main",
    ),
    *_row("2 vacuum", (FORBIDDEN, WRONG), "VACUUM", "VACUUM main", "VACUUM INTO 'copy.db'"),
    *_row(
        "3 load_extension",
        FORBIDDEN,
        "SELECT load_extension('x')",
        "SELECT load_extension('x', 'y')",
        "SELECT LOAD_EXTENSION('x')",
    ),
    *_row(
        "3 functions of the shell",
        (FORBIDDEN, WRONG),
        "SELECT edit('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('x', 'y')",
    ),
    *_row(
        "4 schema writes",
        FORBIDDEN,
        "PRAGMA writable_schema = ON",
        "PRAGMA schema_version = 7",
        "UPDATE sqlite_schema SET sql = ''",
        "UPDATE sqlite_master SET sql = ''",
        "DELETE FROM sqlite_schema",
        "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 2, 'CREATE TABLE x (a)')",
        "DROP TABLE sqlite_schema",
    ),
    *_row(
        "5 journal mode",
        FORBIDDEN,
        "PRAGMA journal_mode",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA main.journal_mode = OFF",
        "PRAGMA journal_mode(MEMORY)",
        "SELECT * FROM pragma_journal_mode",
    ),
    *_row(
        "6 pragmas of the file",
        FORBIDDEN,
        *(
            f"PRAGMA {each}"
            for each in (
                "wal_checkpoint(TRUNCATE)",
                "wal_autocheckpoint = 1",
                "journal_size_limit = 1",
                "locking_mode = NORMAL",
                "synchronous = OFF",
                "mmap_size = 1",
                "cache_size = 1",
                "page_size = 512",
                "auto_vacuum = FULL",
                "incremental_vacuum",
                "secure_delete = ON",
                "encoding = 'UTF-16'",
                "temp_store = MEMORY",
                "temp_store_directory = '/tmp'",
                "threads = 4",
                "query_only = OFF",
                "busy_timeout = 1",
                "read_uncommitted = ON",
                "analysis_limit = 0",
                "trusted_schema = ON",
                "cell_size_check = OFF",
                "checkpoint_fullfsync = ON",
                "nonsense",
            )
        ),
    ),
    *_row(
        "7 heap limits",
        FORBIDDEN,
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA soft_heap_limit = 1",
    ),
    *_row("7 heap limits", (FORBIDDEN, WRONG), "SELECT * FROM pragma_hard_heap_limit(1)"),
    *_row("8 page count", FORBIDDEN, "PRAGMA max_page_count = 1", "PRAGMA max_page_count"),
    *_row(
        "9 state of the connection",
        FORBIDDEN,
        "PRAGMA foreign_keys = OFF",
        "PRAGMA ignore_check_constraints = ON",
        "PRAGMA recursive_triggers = ON",
        "PRAGMA case_sensitive_like = ON",
        "PRAGMA reverse_unordered_selects = ON",
        "PRAGMA legacy_alter_table = ON",
    ),
    *_row("9 state of the connection", FORBIDDEN, "PRAGMA defer_foreign_keys = ON", batch=False),
    *_row(
        "10 leaking pragmas",
        FORBIDDEN,
        "PRAGMA database_list",
        "SELECT file FROM pragma_database_list",
        "PRAGMA compile_options",
        "SELECT * FROM pragma_compile_options",
        "PRAGMA module_list",
        "PRAGMA function_list",
        "PRAGMA collation_list",
        "SELECT sqlite_version()",
        "SELECT sqlite_source_id()",
        "SELECT sqlite_compileoption_get(1)",
        "SELECT sqlite_compileoption_used('X')",
        "SELECT sqlite_log(1, 'x')",
    ),
    *_row("10 leaking pragmas", WRONG, "SELECT sqlite_offset(body) FROM notes"),
    *_row(
        "25 loops in one instruction",
        FORBIDDEN,
        "SELECT snippet(found, 0, '', '', '', 9) FROM found",
    ),
    *_row("11 versions", FORBIDDEN, "PRAGMA user_version = 7", "PRAGMA application_id = 7"),
    *_row("11 versions", OK, "PRAGMA user_version"),
    *_row(
        "12 reserved tables",
        FORBIDDEN,
        "SELECT * FROM _dosql_s",
        "SELECT * FROM _DOSQL_S",
        'SELECT * FROM "_dosql_s"',
        "SELECT * FROM [_dosql_s]",
        "SELECT * FROM `_dosql_s`",
        "SELECT * FROM main._dosql_s",
        "SELECT rowid FROM _dosql_s",
        "SELECT count(*) FROM _dosql_s",
        "SELECT 1 FROM _dosql_s LIMIT 0",
        "SELECT * FROM notes WHERE EXISTS (SELECT 1 FROM _dosql_s)",
        "SELECT (SELECT v FROM _dosql_s)",
        "SELECT * FROM notes WHERE body IN _dosql_s",
        "WITH a AS (SELECT * FROM _dosql_s) SELECT * FROM a",
        "SELECT * FROM notes JOIN _dosql_s",
        "SELECT * FROM notes ORDER BY (SELECT v FROM _dosql_s)",
        "SELECT body FROM notes UNION SELECT v FROM _dosql_s",
        "SELECT * FROM shows_s",
        "CREATE TABLE copied AS SELECT * FROM _dosql_s",
        "INSERT INTO notes (body) SELECT v FROM _dosql_s",
        "INSERT INTO trap VALUES (1)",
        "INSERT INTO _dosql_s VALUES ('x')",
        "REPLACE INTO _dosql_s VALUES ('x')",
        "UPDATE _dosql_s SET v = 'x'",
        "UPDATE notes SET body = v FROM _dosql_s",
        "DELETE FROM _dosql_s",
        "DELETE FROM _dosql_s RETURNING v",
        "DROP TABLE _dosql_s",
        "ALTER TABLE _dosql_s ADD COLUMN w",
        "ALTER TABLE _dosql_s RENAME TO mine",
        "ALTER TABLE notes RENAME TO _dosql_x",
        "ALTER TABLE notes RENAME TO _DoSql_x",
        "CREATE TABLE _dosql_x (a)",
        "CREATE VIEW _dosql_v AS SELECT 1",
        "CREATE INDEX _dosql_i ON notes (body)",
        "CREATE INDEX i ON _dosql_s (v)",
        "CREATE TRIGGER _dosql_t AFTER INSERT ON notes BEGIN SELECT 1; END",
        "CREATE TRIGGER t AFTER INSERT ON _dosql_s BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE _dosql_f USING fts5(a)",
        "CREATE VIRTUAL TABLE _dosql USING fts5(a)",
        "ALTER TABLE found RENAME TO _dosql",
        "PRAGMA table_info(_dosql_s)",
        "PRAGMA table_xinfo(_dosql_s)",
        "PRAGMA index_list(_dosql_s)",
        "PRAGMA foreign_key_check(_dosql_s)",
        "PRAGMA integrity_check(_dosql_s)",
        "SELECT * FROM pragma_table_info('_dosql_s')",
        "SELECT * FROM pragma_table_info('_dosql' || '_s')",
        "EXPLAIN SELECT * FROM _dosql_s",
    ),
    *_row(
        "12 sessions and rate limits",
        FORBIDDEN,
        "SELECT * FROM sessions",
        "SELECT * FROM SESSIONS",
        "SELECT count(*) FROM main.sessions",
        'SELECT token_hash FROM "sessions"',
        "SELECT * FROM users WHERE id IN (SELECT user_id FROM sessions)",
        "SELECT * FROM shows_sessions",
        "WITH a AS (SELECT * FROM sessions) SELECT * FROM a",
        "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES (randomblob(32), 1, 9)",
        "UPDATE sessions SET expires_at = 9",
        "DELETE FROM sessions",
        "DELETE FROM users WHERE id IN (SELECT user_id FROM sessions)",
        "DELETE FROM trap",
        "DROP TABLE sessions",
        "ALTER TABLE sessions ADD COLUMN a",
        "CREATE INDEX i ON sessions (user_id)",
        "DROP INDEX idx_sessions_user_id",
        "CREATE TRIGGER t AFTER INSERT ON sessions BEGIN SELECT 1; END",
        "CREATE TABLE copied AS SELECT * FROM sessions",
        "SELECT tat FROM rate_limits",
        "DELETE FROM rate_limits",
        "UPDATE rate_limits SET tat = 0",
        "INSERT INTO rate_limits VALUES (x'00', 1)",
        "PRAGMA table_info(sessions)",
        "SELECT * FROM pragma_index_list('sess' || 'ions')",
    ),
    *_row("12 sessions and rate limits", OK, "DELETE FROM users", "SELECT 'sessions'"),
    *_row(
        "13 the schema is public",
        OK,
        "SELECT name FROM sqlite_schema",
        "PRAGMA table_list",
        "PRAGMA table_info(notes)",
        "SELECT name FROM pragma_table_info('notes')",
    ),
    *_row("13 page contents", FORBIDDEN, "SELECT * FROM dbstat", "SELECT * FROM DBSTAT('main')"),
    *_row(
        "13 page contents",
        (FORBIDDEN, WRONG),
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM sqlite_stmt",
        "SELECT * FROM bytecode('SELECT 1')",
    ),
    *_row(
        "14 references to the server",
        FORBIDDEN,
        "CREATE TABLE mine (a REFERENCES _dosql_s)",
        "CREATE TABLE mine (a REFERENCES sessions)",
        "CREATE TABLE mine (a, FOREIGN KEY (a) REFERENCES Sessions (token_hash))",
        'CREATE TABLE mine (a REFERENCES "rate_limits" ON DELETE CASCADE)',
        "ALTER TABLE notes ADD COLUMN a REFERENCES sessions",
    ),
    *_row("14 references to the server", OK, "CREATE TABLE mine (sessions, a REFERENCES users)"),
    *_row(
        "15 temporary objects",
        FORBIDDEN,
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMP TABLE sessions (a)",
        "CREATE TABLE temp.t (a)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE VIEW temp.v AS SELECT 1",
        "CREATE TEMP TRIGGER t AFTER INSERT ON notes BEGIN SELECT 1; END",
        "CREATE TRIGGER temp.t AFTER INSERT ON main._dosql_s BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE temp.f USING fts5(a)",
    ),
    *_row(
        "16 virtual tables",
        FORBIDDEN,
        "CREATE VIRTUAL TABLE f USING fts3(a)",
        "CREATE VIRTUAL TABLE f USING fts4(a)",
        "CREATE VIRTUAL TABLE f USING fts4aux(found)",
        "CREATE VIRTUAL TABLE f USING dbstat(main)",
        "CREATE VIRTUAL TABLE f USING geopoly(a)",
        "CREATE VIRTUAL TABLE f USING fts3tokenize(simple)",
        "SELECT * FROM carray(1, 2)",
        "SELECT geopoly_area(x'00')",
        "SELECT rtreenode(2, x'00')",
    ),
    *_row(
        "16 virtual tables",
        (FORBIDDEN, WRONG),
        "SELECT * FROM generate_series(1, 2)",
        "CREATE VIRTUAL TABLE f USING csv(filename='/etc/passwd')",
        "SELECT * FROM completion",
        "SELECT * FROM fsdir('/')",
    ),
    *_row(
        "17 shadow tables",
        FORBIDDEN,
        "DELETE FROM found_config",
        "UPDATE found_data SET block = x'00'",
        "INSERT INTO found_content VALUES (9, 'x')",
        "DROP TABLE found_data",
        "DELETE FROM places_node",
    ),
    *_row(
        "17 shadow content",
        FORBIDDEN,
        "CREATE VIRTUAL TABLE f USING fts5(v, content='_dosql_s')",
        'CREATE VIRTUAL TABLE f USING fts5(v, content="_DOSQL_s")',
        "CREATE VIRTUAL TABLE f USING fts5(v, content=[_dosql_s])",
        "CREATE VIRTUAL TABLE f USING fts5(v, content = _dosql_s)",
        "CREATE VIRTUAL TABLE f USING fts5(v, conte='_dosql_s')",
        "CREATE VIRTUAL TABLE f USING fts5(user_id, content='sessions')",
        "CREATE VIRTUAL TABLE f USING fts5(tat, content='rate_limits', content_rowid='tat')",
    ),
    *_row("17 shadow content", OK, "CREATE VIRTUAL TABLE f USING fts5(body, content='notes')"),
    *_row(
        "18 tokenizer",
        FORBIDDEN,
        "SELECT fts3_tokenizer('simple')",
        "SELECT fts3_tokenizer('simple', x'00')",
        "SELECT fts5(1)",
    ),
    *_row("19 unsafe functions", FORBIDDEN, "INSERT INTO logged VALUES (1)"),
    *_row(
        "19 unsafe functions",
        FORBIDDEN,
        "CREATE TABLE t (a DEFAULT (sqlite_version()))",
        "CREATE TABLE t (a, b AS (sqlite_source_id()))",
        "CREATE INDEX i ON notes (sqlite_version())",
    ),
    *_row(
        "20 transactions",
        TRANSACTION,
        "BEGIN",
        "BEGIN IMMEDIATE",
        "BEGIN EXCLUSIVE",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT s",
        "RELEASE s",
        "ROLLBACK TO s",
        "ROLLBACK TO _dosql_guard",
        "RELEASE _dosql_savepoint",
    ),
    *_row(
        "21 rollback from inside",
        ((409, "constraint_unique"), (409, "transaction_aborted")),
        "INSERT OR ROLLBACK INTO notes (body) VALUES ('one')",
        "UPDATE OR ROLLBACK notes SET body = 'one'",
    ),
    *_row(
        "21 rollback from inside",
        ((409, "constraint_trigger"), (409, "transaction_aborted")),
        "INSERT INTO undone VALUES (1)",
    ),
    *_row(
        "22 several statements",
        (400, "sql_multiple_statements"),
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE notes",
        "DELETE FROM notes; ATTACH 'x' AS y",
        "SELECT 1 /* ; */ ; -- ;\n SELECT 2",
    ),
    *_row("22 several statements", OK, "SELECT 1; -- nothing more"),
    *_row(
        "24 statements without end",
        TIMEOUT,
        _N.format("") + "SELECT count(*) FROM n",
        _N.format(" LIMIT 3000") + "SELECT count(*) FROM n a, n b, n c",
        _N.format(" LIMIT 90000000") + "SELECT i FROM n ORDER BY (i * 7919) % 1000003",
        "CREATE TABLE t AS " + _N.format("") + "SELECT i FROM n",
        "INSERT INTO notes (body) " + _N.format("") + "SELECT i FROM n",
        "UPDATE notes SET body = (" + _N.format("") + "SELECT count(*) FROM n)",
    ),
    *_row(
        "24 statements without end",
        (TIMEOUT, MEMORY),
        _N.format(" LIMIT 90000000") + "SELECT count(DISTINCT i) FROM n",
        _N.format(" LIMIT 90000000") + "SELECT median(i) FROM n",
    ),
    *_row(
        "25 loops in one instruction",
        OK,
        f"SELECT instr({_A.format(1000000, 'a')}, {_A.format(500000, 'a')} || 'b')",
        f"SELECT length(replace({_A.format(900000, 'a')}, {_A.format(400000, 'a')} || 'b', ''))",
        f"SELECT length(trim({_A.format(900000, 'a')}, {_A.format(400000, 'b')} || 'a'))",
        f"SELECT length(ltrim({_A.format(900000, 'a')}, {_A.format(400000, 'b')} || 'a'))",
        f"SELECT length(rtrim({_A.format(900000, 'a')}, {_A.format(400000, 'b')} || 'a'))",
        f"SELECT unhex({_A.format(400000, 'z')}, {_A.format(400000, 'b')} || 'z')",
    ),
    *_row(
        "25 loops in one instruction",
        FORBIDDEN,
        "SELECT json_patch('{}', '{}')",
        "SELECT jsonb_patch('{}', '{}')",
    ),
    *_row(
        "25 many instructions on long values",
        (OK, TIMEOUT, LONG),
        "SELECT " + " + ".join(f"length(upper(v || {i}))" for i in range(90)) + " FROM long",
        "SELECT " + " OR ".join(f"v LIKE '%{'_a' * 23}{i}'" for i in range(90)) + " FROM long",
    ),
    *_row(
        "26 huge values",
        LONG,
        "SELECT printf('%1000000000d', 1)",
        "SELECT zeroblob(1000000000)",
        "SELECT randomblob(1000000000)",
        "SELECT hex(zeroblob(2000000))",
        "SELECT replace('aaaa', 'a', " + _A.format(1000000, "b") + ")",
        "SELECT length(" + "||".join([_A.format(900000, "a")] * 3) + ")",
        _N.format(" LIMIT 20") + "SELECT length(group_concat(randomblob(200000))) FROM n",
        _N.format(" LIMIT 20") + "SELECT length(json_group_array(hex(zeroblob(100000)))) FROM n",
    ),
    *_row(
        "27 patterns",
        WRONG,
        f"SELECT body LIKE '%{'_a' * 30}' FROM notes",
        f"SELECT body GLOB '*{'?a' * 30}' FROM notes",
    ),
    *_row(
        "27 patterns",
        (OK, TIMEOUT),
        f"SELECT v LIKE '%{'_a' * 23}b' FROM long",
        f"SELECT v GLOB '*{'?a' * 23}b' FROM long",
    ),
    *_row(
        "28 prepare bombs",
        (COMPLEX, WRONG),
        f"SELECT {_DEEP}",
        f"WITH v0 AS (SELECT 1 a), {_VIEWS} z AS (SELECT 1) SELECT * FROM v17",
        "SELECT " + " UNION ALL SELECT ".join(["1"] * 60),
        "SELECT * FROM " + ", ".join(f"notes n{i}" for i in range(70)),
        "SELECT " + ", ".join(["1"] * 300),
        "SELECT " + "-" * 200 + "1",
        "SELECT max(" + ",".join(["1"] * 200) + ")",
    ),
    *_row(
        "29 memory",
        (MEMORY, TIMEOUT, LARGE, LONG),
        "SELECT " + ", ".join(["randomblob(2000000)"] * 190),
    ),
    *_row(
        "29 memory",
        (OK, MEMORY, TIMEOUT, LONG),
        "SELECT max("
        + ", ".join(
            "max(" + ", ".join(f"printf('%.*c', 2000000, {i}{j})" for i in range(20)) + ")"
            for j in range(50)
        )
        + ") IS NULL",
    ),
    *_row("32 huge results", LARGE, _N.format(" LIMIT 20000") + "SELECT i FROM n"),
    *_row(
        "32 huge results",
        (LARGE, TIMEOUT),
        _N.format(" LIMIT 20") + "SELECT randomblob(1000000) FROM n",
    ),
    *_row("35 encodings", (400, "invalid_encoding"), "SELECT '\0'"),
    *_row("35 encodings", OK, "SELECT CAST(x'ff' AS TEXT)", "SELECT length('a' || char(0))"),
    *_row("35 encodings", (400, "invalid_text"), "SELECT instr(CAST(x'ff' AS TEXT), 'a')"),
    *_row("37 strings and nothing", WRONG, 'SELECT "nosuch"', 'CREATE INDEX i ON notes ("x")'),
    *_row("37 strings and nothing", (400, "sql_empty"), "", " ; ", "-- nothing", "/* */"),
    *_row(
        "39 statistics",
        FORBIDDEN,
        "UPDATE sqlite_stat1 SET stat = '1'",
        "DELETE FROM sqlite_stat1",
        "INSERT INTO sqlite_stat1 VALUES ('notes', 'x', '1')",
        "DELETE FROM main.SQLITE_STAT4",
    ),
    *_row("39 statistics", OK, "ANALYZE", "ANALYZE notes", "REINDEX", "PRAGMA optimize"),
]
