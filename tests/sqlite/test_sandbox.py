"""What tenant SQL may not do, by whatever way it tries."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from dosql.errors import DosqlError, ForbiddenError
from dosql.sqlite.allowed import MODULES
from dosql.sqlite.database import Database
from dosql.wire.statements import Operation

SECRET = "hunter2"


@pytest.fixture
def tenant(notes: Database) -> Database:
    """A database with a table of the server's in it."""
    notes.internal_run("CREATE TABLE _dosql_s (v TEXT PRIMARY KEY)")
    notes.internal_run("INSERT INTO _dosql_s VALUES (?)", [SECRET])
    return notes


FORBIDDEN = [
    "ATTACH 'other.db' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
    "CREATE TEMP TABLE t (a)",
    "CREATE TABLE temp.t (a)",
    "CREATE TABLE Temp.t (a)",
    "CREATE VIEW temp.v AS SELECT 1",
    "CREATE TRIGGER temp.t AFTER INSERT ON main.notes BEGIN SELECT 1; END",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE TEMP TRIGGER t AFTER INSERT ON notes BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE f USING fts3(a)",
    "CREATE VIRTUAL TABLE f USING fts4(a)",
    "CREATE VIRTUAL TABLE f USING dbstat(main)",
    "CREATE VIRTUAL TABLE f USING geopoly(a)",
    "CREATE VIRTUAL TABLE temp.f USING fts5(a)",
    "SELECT load_extension('x')",
    "SELECT sqlite_log(1, 'x')",
    "SELECT sqlite_version()",
    "SELECT fts3_tokenizer('simple')",
    "SELECT * FROM dbstat",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA journal_mode",
    "PRAGMA locking_mode = NORMAL",
    "PRAGMA synchronous = OFF",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint = 1",
    "PRAGMA writable_schema = ON",
    "PRAGMA schema_version = 7",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA ignore_check_constraints = ON",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA case_sensitive_like = ON",
    "PRAGMA defer_foreign_keys = ON",
    "PRAGMA max_page_count = 1",
    "PRAGMA hard_heap_limit = 1",
    "PRAGMA soft_heap_limit = 1",
    "PRAGMA cache_size = 1",
    "PRAGMA mmap_size = 1",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA query_only = ON",
    "PRAGMA trusted_schema = ON",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 7",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA page_size = 512",
    "PRAGMA auto_vacuum = FULL",
    "PRAGMA incremental_vacuum",
    "PRAGMA secure_delete = ON",
    "PRAGMA database_list",
    "SELECT * FROM pragma_database_list",
    "PRAGMA compile_options",
    "PRAGMA function_list",
    "PRAGMA module_list",
    "PRAGMA nonsense",
    "SELECT * FROM _dosql_s",
    "SELECT * FROM _DOSQL_s",
    'SELECT * FROM "_dosql_s"',
    "SELECT * FROM main._dosql_s",
    "SELECT rowid FROM _dosql_s",
    "SELECT count(*) FROM _dosql_s",
    "SELECT * FROM notes WHERE EXISTS (SELECT 1 FROM _dosql_s)",
    "WITH a AS (SELECT * FROM _dosql_s) SELECT * FROM a",
    "SELECT * FROM notes JOIN _dosql_s",
    "CREATE TABLE copied AS SELECT * FROM _dosql_s",
    "INSERT INTO _dosql_s VALUES ('x')",
    "INSERT INTO notes (body) SELECT v FROM _dosql_s",
    "UPDATE _dosql_s SET v = 'x'",
    "DELETE FROM _dosql_s",
    "DELETE FROM _dosql_s RETURNING v",
    "DROP TABLE _dosql_s",
    "ALTER TABLE _dosql_s ADD COLUMN w",
    "ALTER TABLE _dosql_s RENAME TO mine",
    "CREATE INDEX i ON _dosql_s (v)",
    "CREATE TABLE _dosql_x (a)",
    "CREATE TABLE _Dosql_X (a)",
    "CREATE VIEW _dosql_v AS SELECT 1",
    "CREATE INDEX _dosql_i ON notes (body)",
    "CREATE TRIGGER _dosql_t AFTER INSERT ON notes BEGIN SELECT 1; END",
    "CREATE TRIGGER t AFTER INSERT ON _dosql_s BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE _dosql_f USING fts5(a)",
    "ALTER TABLE notes RENAME TO _dosql_x",
    "ALTER TABLE notes RENAME TO _DOSQL_x",
    "PRAGMA table_info(_dosql_s)",
    "SELECT * FROM pragma_table_info('_dosql_s')",
    "PRAGMA foreign_key_check(_dosql_s)",
    "EXPLAIN SELECT * FROM _dosql_s",
]
TRANSACTIONS = [
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "ROLLBACK TO s",
    "RELEASE _dosql_savepoint",
]


def attempt(db: Database, sql: str) -> DosqlError:
    """Try it the way it fits; the error it met."""
    for call in (db.query, db.run):
        try:
            call(sql)
        except DosqlError as error:
            if error.code != "statement_returns_no_rows":
                return error
    raise AssertionError(f"allowed: {sql}")


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_forbidden_sql_is_refused_cold_warm_and_in_a_batch(tenant: Database, sql: str) -> None:
    before = tenant.internal_query("SELECT name, sql FROM sqlite_schema ORDER BY name")
    assert attempt(tenant, sql).code in ("sql_forbidden", "sql_error")
    error = attempt(tenant, sql)
    assert isinstance(error, ForbiddenError) or "no such" in error.message, error
    if "defer_foreign_keys" not in sql:
        for kind in ("run", "query"):
            with pytest.raises(DosqlError) as caught:
                tenant.batch([Operation(type=kind, sql=sql)])
            assert caught.value.index == 0
            assert caught.value.code != "internal_error"
    after = tenant.internal_query("SELECT name, sql FROM sqlite_schema ORDER BY name")
    assert after == before
    assert tenant.internal_query("SELECT v FROM _dosql_s") == [(SECRET,)]
    assert not tenant.in_transaction


@pytest.mark.parametrize("sql", TRANSACTIONS)
def test_transactions_are_not_controlled_by_sql(tenant: Database, sql: str) -> None:
    """Also while one is open, and although the server itself has run the same text."""
    with tenant.transaction(), tenant.savepoint():
        pass
    for _ in range(2):
        error = attempt(tenant, sql)
        assert isinstance(error, ForbiddenError)
        assert error.code == "transaction_forbidden"
    tenant.begin()
    assert attempt(tenant, sql).code == "transaction_forbidden"
    assert tenant.in_transaction
    tenant.rollback()


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA table_info(notes)",
        "PRAGMA table_xinfo(notes)",
        "PRAGMA table_list",
        "PRAGMA index_list(notes)",
        "PRAGMA index_info(sqlite_autoindex_notes_1)",
        "PRAGMA index_xinfo(sqlite_autoindex_notes_1)",
        "PRAGMA foreign_key_list(notes)",
        "PRAGMA foreign_key_check",
        "PRAGMA page_count",
        "PRAGMA page_size",
        "PRAGMA freelist_count",
        "PRAGMA user_version",
        "PRAGMA encoding",
        "PRAGMA quick_check",
        "PRAGMA integrity_check",
        "PRAGMA optimize",
        "SELECT name FROM pragma_table_info('notes')",
        "SELECT name FROM sqlite_schema",
        "SELECT * FROM json_each('[1]')",
        "PRAGMA optimize(0x10002)",
    ],
)
def test_looking_at_ones_own_schema_is_allowed(tenant: Database, sql: str) -> None:
    tenant.query(sql)
    tenant.query_one(sql)


@pytest.mark.parametrize("sql", ["ANALYZE", "ANALYZE notes", "REINDEX", "REINDEX notes"])
def test_upkeep_is_allowed_although_the_server_has_tables_too(tenant: Database, sql: str) -> None:
    tenant.internal_run("CREATE INDEX _dosql_i ON _dosql_s (v)")
    tenant.run(sql)


@pytest.mark.parametrize("module", sorted(MODULES - {"fts5vocab"}))
def test_allowed_virtual_tables_work_and_survive_a_reopening(tenant: Database, module: str) -> None:
    columns = "body" if module == "fts5" else "id, low, high"
    tenant.run(f"CREATE VIRTUAL TABLE f USING {module}({columns})")
    if module == "fts5":
        tenant.run("CREATE VIRTUAL TABLE words USING fts5vocab(f, row)")
        tenant.run("INSERT INTO f VALUES ('hello world')")
        assert tenant.query("SELECT body FROM f('hello')").rows == [("hello world",)]
        assert tenant.query("SELECT count(*) FROM words").rows == [(2,)]
        assert tenant.run("INSERT INTO f (f) VALUES ('optimize')").changes >= 0
    else:
        tenant.run("INSERT INTO f VALUES (1, 2, 3)")
        assert tenant.query("SELECT id FROM f WHERE low >= 2").rows == [(1,)]
    tenant.run("DROP TABLE f")


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE sqlite_schema SET sql = ''", "sql_forbidden"),
        ("DELETE FROM sqlite_schema", "sql_forbidden"),
        ("CREATE TABLE sqlite_x (a)", "sql_error"),
        ("DROP TABLE f_data", "sql_forbidden"),
        ("DELETE FROM f_config", "sql_forbidden"),
        ('SELECT "no such column"', "sql_error"),
    ],
)
def test_sqlites_own_defences_are_on(tenant: Database, sql: str, code: str) -> None:
    tenant.run("CREATE VIRTUAL TABLE f USING fts5(body)")
    assert attempt(tenant, sql).code == code


def test_a_statement_of_the_server_is_not_handed_to_a_tenant_by_the_cache(
    tenant: Database,
) -> None:
    """Finding 1: SQLite does not ask again for a statement that is prepared already."""
    for sql in ("SELECT v FROM _dosql_s", "DELETE FROM _dosql_s WHERE 0"):
        attempt(tenant, sql)
        for _ in range(3):
            tenant.internal_query(sql)
        assert attempt(tenant, sql).code == "sql_forbidden"


def test_the_cache_keeps_the_servers_statements_apart(tenant: Database) -> None:
    tenant.internal_query("SELECT 17")
    hits = tenant._connection.cache_stats()["hits"]
    tenant.prepare("SELECT 17")
    assert tenant._connection.cache_stats()["hits"] == hits


def test_a_statement_of_the_operator_is_not_handed_to_a_tenant_by_the_cache(
    tenant: Database,
) -> None:
    tenant.exec("PRAGMA user_version = 7")
    assert attempt(tenant, "PRAGMA user_version = 7").code == "sql_forbidden"


def test_a_pragma_allowed_in_a_batch_is_not_handed_out_by_the_cache(tenant: Database) -> None:
    sql = "PRAGMA defer_foreign_keys = ON"
    tenant.batch([Operation(type="run", sql=sql)])
    with pytest.raises(ForbiddenError):
        tenant.run(sql)


def test_a_tenants_trigger_does_not_act_with_the_servers_right(tenant: Database) -> None:
    """Finding 2: only CREATE TRIGGER is authorized, its body when somebody fires it."""
    tenant.run("CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM _dosql_s; END")
    for _ in range(2):
        with pytest.raises(ForbiddenError):
            tenant.internal_run("INSERT INTO notes (body) VALUES ('by the server')")
        with pytest.raises(ForbiddenError):
            tenant.run("INSERT INTO notes (body) VALUES ('by the tenant')")
    assert tenant.internal_query("SELECT v FROM _dosql_s") == [(SECRET,)]
    assert tenant.query("SELECT count(*) FROM notes").rows == [(3,)]


def test_a_trigger_made_after_the_servers_statement_was_cached_is_caught(
    tenant: Database,
) -> None:
    insert = "INSERT INTO notes (body) VALUES (?)"
    assert tenant.internal_run(insert, ["before"]) == 1
    tenant.run("CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM _dosql_s; END")
    with pytest.raises(ForbiddenError):
        tenant.internal_run(insert, ["after"])


def test_a_tenants_view_does_not_read_with_the_servers_right(tenant: Database) -> None:
    tenant.run("DROP TABLE notes")
    tenant.run("CREATE VIEW notes AS SELECT v AS body FROM _dosql_s")
    with pytest.raises(ForbiddenError):
        tenant.internal_query("SELECT body FROM notes")
    with pytest.raises(ForbiddenError):
        tenant.query("SELECT body FROM notes")


def test_a_table_cannot_be_renamed_into_a_reserved_name(tenant: Database) -> None:
    """Finding 3: the authorizer is never told the new name."""
    with pytest.raises(ForbiddenError) as caught:
        tenant.run("ALTER TABLE notes RENAME TO _dosql_x")
    assert caught.value.code == "sql_forbidden"
    tenant.begin()
    with pytest.raises(ForbiddenError):
        tenant.run("ALTER TABLE notes RENAME TO _dosql_x")
    tenant.commit()
    with pytest.raises(ForbiddenError):
        tenant.exec("ALTER TABLE notes RENAME TO _dosql_x")
    assert tenant.query("SELECT count(*) FROM notes").rows == [(3,)]
    tenant.run("ALTER TABLE notes RENAME TO renamed")
    assert tenant.query("SELECT count(*) FROM renamed").rows == [(3,)]


def test_no_file_is_made_beside_the_database(tenant: Database, tmp_path: Path) -> None:
    for sql in ("ATTACH 'file:other.db?mode=rwc' AS o", f"VACUUM INTO '{tmp_path}/copy.db'"):
        attempt(tenant, sql)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["tenant.db", "tenant.db-wal"]


def test_this_build_of_sqlite_has_no_module_that_nobody_judged(db: Database) -> None:
    """Another wheel may bring others: then the sandbox must say what becomes of them."""
    present = {str(row[0]) for row in db.internal_query("PRAGMA module_list")}
    judged = MODULES | {"dbstat", "fts3", "fts3tokenize", "fts4", "fts4aux", "geopoly"}
    assert {name for name in present if not name.startswith("pragma_")} <= judged | {
        "json_each",
        "json_tree",
    }


def test_extensions_cannot_be_loaded_from_c_either(db: Database) -> None:
    with pytest.raises(apsw.ExtensionLoadingError):
        db._connection.load_extension("x")
