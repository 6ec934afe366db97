"""The shell: from a pipe, from files, and on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest

from dosql.cli.shell.script import run_script
from dosql.cli.shell.session import Session
from dosql.client import Client, Tenant
from tests.cli.conftest import ROOT, Run, environment, run_dosql
from tests.support.server import ServerProcess


class Shell:
    """A shell in this process, fed with text."""

    def __init__(self, tenant: Tenant) -> None:
        self.out = StringIO()
        self.err = StringIO()
        self.session = Session(tenant, out=self.out, err=self.err, mode="csv")

    def run(self, text: str) -> bool:
        return run_script(self.session, StringIO(text), "test")

    def output(self, text: str) -> str:
        """What the text prints, which must succeed."""
        self.out.truncate(0)
        self.out.seek(0)
        assert self.run(text), self.err.getvalue()
        return self.out.getvalue()


@pytest.fixture
def shell(tenant: Tenant) -> Shell:
    return Shell(tenant)


def test_a_script_from_a_pipe(shared_server: ServerProcess, tenant: Tenant) -> None:
    """Statements over many lines, several in one, and the last without its semicolon."""
    script = """
    CREATE TABLE fruit (
      name TEXT -- a comment; with a semicolon
    );
    INSERT INTO fruit VALUES ('apple'), ('semi;colon'); INSERT INTO fruit VALUES ('a
b');
    .mode json
    SELECT name FROM fruit ORDER BY rowid"""
    done = run_dosql(
        "shell",
        tenant.name,
        stdin=script,
        DOSQL_URL=shared_server.url,
        DOSQL_TOKEN=shared_server.admin_token,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == '[{"name":"apple"},\n {"name":"semi;colon"},\n {"name":"a\\nb"}]\n'
    assert done.stderr == ""


def test_a_script_stops_at_the_first_error(dosql: Run, tenant: Tenant) -> None:
    """The exit code is 1, and the error names the line."""
    script = "CREATE TABLE t (a);\n\nSELECT nonsense;\nINSERT INTO t VALUES (1);"
    done = dosql("shell", tenant.name, stdin=script)
    assert done.returncode == 1
    assert "stdin, line 3: no such column: nonsense (" in done.stderr
    assert tenant.query("SELECT * FROM t") == []


def test_transactions_go_on_across_lines(shell: Shell, tenant: Tenant) -> None:
    output = shell.output(
        "CREATE TABLE t (a);\nBEGIN;\nINSERT INTO t VALUES (1);\n"
        "SELECT count(*) FROM t;\nROLLBACK;\n"
        "BEGIN IMMEDIATE;\nINSERT INTO t VALUES (2);\nCOMMIT;\nSELECT a FROM t;"
    )
    assert output == "count(*)\n1\na\n2\n"
    assert tenant.query("SELECT a FROM t") == [{"a": 2}]


def test_an_open_transaction_is_rolled_back_at_the_end(dosql: Run, tenant: Tenant) -> None:
    tenant.run("CREATE TABLE t (a)")
    done = dosql("shell", tenant.name, stdin="BEGIN;\nINSERT INTO t VALUES (1);\n")
    assert done.returncode == 0
    assert "rolled back" in done.stderr
    assert tenant.query("SELECT * FROM t") == []


def test_a_transaction_that_the_server_gave_up_is_explained(
    start_server: Callable[..., ServerProcess],
) -> None:
    """The shell says why, and goes on without it."""
    server = start_server(transaction_idle_seconds=0.2)
    with Client(server.url, token=server.admin_token) as client:
        acme = client.tenant("acme")
        shell = Shell(acme)
        assert shell.run("BEGIN;")
        acme.run("CREATE TABLE t (a)")  # runs when the transaction is over
        assert not shell.run("SELECT 1;")
        assert "the server waits 0.2 s for the next statement" in shell.err.getvalue()
        assert not shell.session.in_transaction
        assert shell.output("SELECT 1;") == "1\n1\n"


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("COMMIT;", "No transaction is open"),
        ("ROLLBACK;", "No transaction is open"),
        ("BEGIN; BEGIN;", "open already"),
        ("SAVEPOINT a;", "transaction_forbidden"),
        (".nonsense", "no command .nonsense"),
        (".mode nonsense", "column, csv, json, line, table"),
        (".timer maybe", "Usage: .timer on|off"),
        (".read", "Usage: .read FILE"),
        (".read 'open", "No closing quotation"),
        (".read /nonexistent", "No such file"),
    ],
)
def test_what_cannot_be_done_is_said(shell: Shell, script: str, complaint: str) -> None:
    assert not shell.run(script)
    assert complaint in shell.err.getvalue()
    shell.session.close()


def test_the_schema_can_be_looked_at(shell: Shell) -> None:
    """Neither SQLite's own tables nor the server's are shown."""
    shell.output(
        "CREATE TABLE fruit (name TEXT);\nCREATE INDEX by_name ON fruit (name);\n"
        "CREATE VIEW ripe AS SELECT * FROM fruit;\nCREATE VIRTUAL TABLE words USING fts5 (word);"
    )
    tables = shell.output(".tables").splitlines()
    assert {"fruit", "ripe", "words"} <= set(tables)
    assert not [name for name in tables if name.startswith(("_dosql_", "sqlite_", "words_"))]
    assert shell.output(".tables fr%") == "fruit\n"
    assert shell.output(".indexes fruit") == "by_name\n"
    assert "by_name" in shell.output(".indexes").splitlines()
    assert shell.output(".schema fruit") == (
        "CREATE TABLE fruit (name TEXT);\nCREATE INDEX by_name ON fruit (name);\n"
    )
    assert "CREATE VIEW ripe" in shell.output(".schema")


def test_modes_timer_help_and_quit(shell: Shell) -> None:
    assert shell.output(".mode line\nSELECT 1 AS a;\n.mode") == "a = 1\nline\n"
    assert shell.output(".timer on\nSELECT 1 AS a;") == "a = 1\n"
    assert re.search(r"Run time: \d+\.\d{3} s", shell.err.getvalue())
    assert ".import FILE TABLE" in shell.output(".help")
    assert shell.output(".quit\nSELECT 1;") == ""


def test_a_csv_file_makes_its_table(shell: Shell, tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text('﻿name,age\nAda,36\n"Grace ""Amazing""\nHopper",85\n', encoding="utf-8")
    shell.output(f".import {file} people")
    assert tenant.query("SELECT * FROM people") == [
        {"name": "Ada", "age": "36"},
        {"name": 'Grace "Amazing"\nHopper', "age": "85"},
    ]


def test_a_large_csv_file_is_added_to_a_table(shell: Shell, tenant: Tenant, tmp_path: Path) -> None:
    """In several requests, in order, with the affinity of the columns; generated ones left out."""
    tenant.run("CREATE TABLE numbers (n INTEGER, twice INTEGER AS (n * 2), name TEXT)")
    file = tmp_path / "numbers.csv"
    file.write_text("".join(f"{n},name {n}\n" for n in range(2500)))
    shell.output(f".import '{file}' numbers")
    row = tenant.query_one("SELECT count(*) AS n, sum(twice) AS total FROM numbers")
    assert row == {"n": 2500, "total": 2500 * 2499}
    assert "2500 rows imported" in shell.err.getvalue()


def test_an_import_can_be_rolled_back(shell: Shell, tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("1\n2\n")
    tenant.run("CREATE TABLE t (a)")
    shell.output(f"BEGIN;\n.import {file} t\nROLLBACK;")
    assert tenant.query("SELECT * FROM t") == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a,b\n1,2\n3\n", "line 3: 1 values instead of 2"),
        (b"", "the file is empty"),
        (b'a\n"open', "line 2: unexpected end"),
        (b"a\n\xff\n", "not UTF-8"),
    ],
)
def test_a_wrong_csv_file_changes_nothing(
    shell: Shell, tenant: Tenant, tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "wrong.csv"
    file.write_bytes(content)
    assert not shell.run(f".import {file} wrong")
    assert complaint in shell.err.getvalue()
    assert tenant.query("SELECT 1 FROM sqlite_schema WHERE name = 'wrong'") == []


SCHEMA = """
CREATE TABLE "odd ""name" (id INTEGER PRIMARY KEY AUTOINCREMENT, "a b" TEXT, r REAL, x BLOB,
  twice INT GENERATED ALWAYS AS (id * 2));
CREATE TABLE child (parent INT REFERENCES "odd ""name" (id), rowid TEXT, _rowid_ TEXT);
CREATE TABLE pairs (a TEXT, b INT, PRIMARY KEY (b, a)) WITHOUT ROWID;
CREATE TABLE log (what TEXT);
CREATE VIRTUAL TABLE words USING fts5 (word);
CREATE TRIGGER logged AFTER INSERT ON "odd ""name" BEGIN
  INSERT INTO log VALUES ('a;b'); INSERT INTO log VALUES ('c');
END;
INSERT INTO "odd ""name" ("a b", r, x) VALUES ('it''s; ok', 1.0, x'00ff'), ('two
lines', 9e999, NULL), (NULL, -0.1, ''), ('gone', 0, 0);
DELETE FROM "odd ""name" WHERE id = 4;
INSERT INTO child VALUES (1, 'r', 's'), (3, NULL, NULL);
INSERT INTO pairs VALUES ('y', 1), ('x', 2), ('x', 1);
INSERT INTO words (rowid, word) VALUES (7, 'hello world');
CREATE VIEW shown AS SELECT "a b" FROM "odd ""name";
CREATE UNIQUE INDEX by_r ON "odd ""name" (r) WHERE r > 0;
"""
CONTENT = [
    'SELECT *, typeof(r), typeof(x) FROM "odd ""name"',
    "SELECT * FROM child",
    "SELECT * FROM pairs",
    "SELECT * FROM log",
    "SELECT rowid, word FROM words WHERE words MATCH 'hello'",
    "SELECT * FROM shown",
    "SELECT seq FROM sqlite_sequence WHERE name LIKE 'odd%'",
    "SELECT name FROM sqlite_schema WHERE name IN ('by_r', 'logged') ORDER BY name",
]


def content(tenant: Tenant) -> list[list[tuple[object, ...]]]:
    return [list(tenant.query_rows(sql).rows) for sql in CONTENT]


def test_a_dump_makes_an_equal_database(shell: Shell, tenant: Tenant) -> None:
    """Read by SQLite itself."""
    shell.output(SCHEMA)
    dump = shell.output(".dump")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(dump)
        assert [connection.execute(sql).fetchall() for sql in CONTENT] == content(tenant)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema")]
        assert not [name for name in names if name.startswith("_dosql_")]


def test_a_dump_is_read_back_by_the_shell(
    shell: Shell, tenant: Tenant, shared_server: ServerProcess, tmp_path: Path
) -> None:
    shell.output(SCHEMA)
    file = tmp_path / "dump.sql"
    file.write_text(shell.output(".dump"))
    with Client(shared_server.url, token=shared_server.admin_token) as client:
        copy = client.tenant(f"{tenant.name}-copy")
        Shell(copy).output(f".read {file}")
        assert content(copy) == content(tenant)


def test_a_dump_of_many_and_large_rows_is_read_in_pages(shell: Shell, tenant: Tenant) -> None:
    """More rows than one answer may have, and more bytes."""
    shell.output(
        "CREATE TABLE many (n INT);\nCREATE TABLE large (x BLOB);\n"
        "INSERT INTO many SELECT value FROM (WITH RECURSIVE c(value) AS "
        "(SELECT 1 UNION ALL SELECT value + 1 FROM c LIMIT 1234) SELECT value FROM c);\n"
        "INSERT INTO large SELECT zeroblob(1000000) FROM many LIMIT 20;\n"
    )
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(shell.output(".dump"))
        assert connection.execute("SELECT count(*), sum(n) FROM many").fetchone() == (
            1234,
            1234 * 1235 // 2,
        )
        assert connection.execute("SELECT sum(length(x)) FROM large").fetchone() == (20_000_000,)


def test_files_that_read_each_other_end(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "again.sql"
    file.write_text(f".read {file}\n")
    assert not shell.run(f".read {file}")
    assert "nested too deeply" in shell.err.getvalue()


def test_output_that_nobody_reads_ends_quietly(
    shared_server: ServerProcess, tenant: Tenant
) -> None:
    """As in ``dosql shell acme | head -1``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dosql.cli", "shell", tenant.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(DOSQL_URL=shared_server.url, DOSQL_TOKEN=shared_server.admin_token),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.write(b"SELECT 1;\n" * 10)
    process.stdin.close()
    assert process.stderr is not None
    complaints = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert complaints == b""


class Terminal:
    """``dosql shell`` on a pseudo-terminal, typed into."""

    def __init__(self, server: ServerProcess, tenant: Tenant, state: Path) -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dosql.cli", "shell", tenant.name],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            cwd=ROOT,
            env=environment(
                DOSQL_URL=server.url,
                DOSQL_TOKEN=server.admin_token,
                TERM="xterm",
                XDG_STATE_HOME=str(state),
                PROMPT_TOOLKIT_NO_CPR="1",
            ),
        )
        os.close(slave)

    def expect(self, text: str) -> None:
        """Read until the text appears, on from where the last one did."""
        while text not in self.seen:
            ready, _, _ = select.select([self._master], [], [], 20)
            assert ready, f"waited in vain for {text!r} after {self.seen!r}"
            try:
                data = os.read(self._master, 65_536)
            except OSError:  # what Linux says when the other side has gone
                data = b""
            assert data, f"it ended before {text!r}, after {self.seen!r}"
            self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", data.decode())
        self.seen = self.seen.partition(text)[2]

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        """Until it ends by itself; returns the exit code."""
        return self.process.wait(timeout=20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(shared_server: ServerProcess, tenant: Tenant, tmp_path: Path) -> Iterator[Terminal]:
    with closing(Terminal(shared_server, tenant, tmp_path)) as terminal:
        yield terminal


def test_the_shell_on_a_terminal(terminal: Terminal, tenant: Tenant, tmp_path: Path) -> None:
    """Editing over lines, an error that does not end it, a transaction, history, Ctrl-C, Ctrl-D."""
    prompt, star = f"{tenant.name}>", f"{tenant.name}*>"
    terminal.expect(prompt)
    terminal.type("CREATE TABLE fruit\r")
    terminal.expect("...>")
    terminal.type("(name TEXT);\r")
    terminal.expect("Done.")
    terminal.expect(prompt)
    terminal.type("SELECT nonsense;\r")
    terminal.expect("no such column: nonsense")
    terminal.expect(prompt)
    terminal.type("BEGIN;\r")
    terminal.expect(star)
    terminal.type("INSERT INTO fruit VALUES ('apple');\r")
    terminal.expect("1 row changed")
    terminal.expect(star)
    terminal.type("COMMIT;\r")
    terminal.expect(prompt)
    terminal.type("this is dropped\x03")
    terminal.expect(prompt)
    terminal.type("SELECT name FROM fruit;\r")
    terminal.expect("| apple |")
    terminal.expect(prompt)
    terminal.type("\x04")
    assert terminal.wait() == 0
    history = tmp_path / "dosql" / "history"
    assert "+COMMIT;" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    assert tenant.query("SELECT name FROM fruit") == [{"name": "apple"}]


def test_leaving_inside_a_transaction_says_what_became_of_it(
    terminal: Terminal, tenant: Tenant
) -> None:
    tenant.run("CREATE TABLE t (a)")
    terminal.expect(f"{tenant.name}>")
    terminal.type("BEGIN;\r")
    terminal.expect(f"{tenant.name}*>")
    terminal.type("INSERT INTO t VALUES (1);\r")
    terminal.expect("1 row changed")
    terminal.expect(f"{tenant.name}*>")
    terminal.type(".quit\r")
    terminal.expect("The open transaction was rolled back.")
    assert terminal.wait() == 0
    assert tenant.query("SELECT * FROM t") == []
