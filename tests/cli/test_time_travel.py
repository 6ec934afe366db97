"""``dosql restore``, ``dosql snapshot``, ``dosql branch`` and ``dosql query --at``."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from dosql.cli.differences import print_diff
from dosql.client import Tenant
from dosql.wire.branches import BranchDiff, RowDifference, SchemaDifference, TableDifference
from tests.cli.conftest import ROOT, Run, environment
from tests.support.server import ServerProcess


@pytest.fixture
def marks(tenant: Tenant) -> list[str]:
    """The bookmark of each state of the tenant: an empty table, then one row, then two."""
    found: list[str] = []
    for sql in (
        "CREATE TABLE fruit (id INTEGER PRIMARY KEY, name TEXT)",
        "INSERT INTO fruit VALUES (1, 'apple')",
        "INSERT INTO fruit VALUES (2, 'pear')",
    ):
        tenant.run(sql)
        assert tenant.last_bookmark is not None
        found.append(tenant.last_bookmark)
    return found


def names(tenant: Tenant) -> list[str]:
    return [row["name"] for row in tenant.query("SELECT name FROM fruit ORDER BY id")]


# --- reading and restoring --------------------------------------------------------------------


def test_a_query_reads_the_past(dosql: Run, tenant: Tenant, marks: list[str]) -> None:
    done = dosql("query", tenant.name, "SELECT name FROM fruit", "--at", marks[1], "--json")
    assert json.loads(done.stdout) == [{"name": "apple"}]
    sql = "DELETE FROM fruit RETURNING id"
    written = dosql("query", tenant.name, sql, "--at", marks[1])
    assert (written.returncode, "(read_only" in written.stderr) == (1, True)


def test_a_restore_in_place_asks_and_says_how_to_take_it_back(
    dosql: Run, tenant: Tenant, marks: list[str]
) -> None:
    refused = dosql("restore", tenant.name, "--at", marks[1])
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert names(tenant) == ["apple", "pear"]
    done = dosql("restore", tenant.name, "--at", marks[1], "--yes")
    assert (done.returncode, done.stdout.splitlines()[0].split()) == (0, ["TENANT", tenant.name])
    assert marks[1] in done.stdout
    assert names(tenant) == ["apple"]
    advice = done.stderr.strip().rpartition("dosql restore ")[2]
    assert dosql("restore", *advice.split(), "--yes").returncode == 0
    assert names(tenant) == ["apple", "pear"]


def test_a_restore_to_another_name_or_for_show_does_not_ask(
    dosql: Run, tenant: Tenant, marks: list[str]
) -> None:
    dry = dosql("restore", tenant.name, "--at", marks[0], "--dry-run", "--json")
    assert json.loads(dry.stdout)["dryRun"] is True
    told = dosql("restore", tenant.name, "--at", marks[0], "--dry-run")
    assert "nothing was changed" in told.stderr
    copy = f"{tenant.name}-copy"
    made = dosql("restore", tenant.name, "--at", marks[1], "--to", copy, "--json")
    assert (json.loads(made.stdout)["tenant"], made.stderr) == (copy, "")
    rows = dosql("query", copy, "SELECT name FROM fruit", "--json")
    assert json.loads(rows.stdout) == [{"name": "apple"}]
    assert names(tenant) == ["apple", "pear"]


def test_what_cannot_be_restored_is_said(dosql: Run, tenant: Tenant, marks: list[str]) -> None:
    wrong = dosql("restore", tenant.name, "--at", "yesterday", "--yes")
    assert (wrong.returncode, "(invalid_time" in wrong.stderr) == (1, True)
    nobody = dosql("restore", "nobody", "--at", marks[0])
    assert "(tenant_not_found" in nobody.stderr
    assert dosql("restore", tenant.name).returncode == 2, "--at is required"


def test_on_a_terminal_a_restore_asks_and_shows_how_far_it_is(
    shared_server: ServerProcess, tenant: Tenant, marks: list[str]
) -> None:
    """Typing ``n`` leaves everything; ``y`` does it, under a bar."""
    for answer, left in (("n", ["apple", "pear"]), ("y", ["apple"])):
        shown = on_terminal(shared_server, f"{answer}\n", "restore", tenant.name, "--at", marks[1])
        assert f"Take tenant {tenant.name} back to" in shown
        assert names(tenant) == left
    assert f"restore {tenant.name}" in shown
    assert "━" in shown
    assert re.search(r"([1-9]\d*)/\1 bytes|([1-9][\d.]*)/\2 [kMG]", shown), "all was read"
    assert "to take it back" in shown


def on_terminal(server: ServerProcess, typed: str, *arguments: str) -> str:
    """What ``dosql`` shows on a terminal, where this is typed."""
    own, its = pty.openpty()
    variables = {
        "DOSQL_URL": server.url,
        "DOSQL_TOKEN": server.admin_token,
        "TERM": "xterm",
        "COLUMNS": "200",
        "PYTHONIOENCODING": "utf-8",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dosql.cli", *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment(**variables),
        cwd=ROOT,
    )
    os.close(its)
    os.write(own, typed.encode())
    shown = b""
    try:
        while select.select([own], [], [], 60)[0]:
            data = os.read(own, 65536)
            if not data:
                break
            shown += data
    except OSError:
        pass  # how Linux says that the other side has closed the terminal
    finally:
        os.close(own)
        process.wait(60)
    return shown.decode()


# --- snapshots --------------------------------------------------------------------------------


def test_snapshots_are_made_listed_and_removed(
    dosql: Run, tenant: Tenant, marks: list[str]
) -> None:
    of = ("--tenant", tenant.name)
    made = json.loads(dosql("snapshot", "create", *of, "--json").stdout)
    assert made["bookmark"] == marks[-1]
    assert json.loads(dosql("snapshot", "ls", *of, "--json").stdout) == {"snapshots": [made]}
    titles, line = dosql("snapshot", "ls", *of).stdout.splitlines()
    assert titles.split() == ["BOOKMARK", "STATE", "OF", "SIZE"]
    assert line.startswith(marks[-1])
    removed = dosql("snapshot", "rm", *of, marks[-1])
    assert (removed.returncode, removed.stdout) == (0, "")
    again = dosql("snapshot", "rm", *of, marks[-1])
    assert (again.returncode, "(snapshot_not_found" in again.stderr) == (1, True)
    assert dosql("snapshot", "create", *of).stdout.splitlines()[1].startswith(marks[-1])


def test_nothing_has_expired_yet(dosql: Run, tenant: Tenant, marks: list[str]) -> None:
    of = ("--tenant", tenant.name)
    told = json.loads(dosql("snapshot", "prune", *of, "--dry-run", "--json").stdout)
    assert told == {"files": 0, "snapshots": 0, "sizeBytes": 0, "dryRun": True}
    assert "removed 0 files" in dosql("snapshot", "prune", *of).stderr


def test_damage_in_the_bucket_is_found_named_and_repaired(
    dosql: Run, shared_server: ServerProcess, tenant: Tenant, marks: list[str]
) -> None:
    of = ("--tenant", tenant.name)
    sound = dosql("snapshot", "verify", *of)
    assert sound.returncode == 0
    assert sound.stdout.splitlines()[0].split() == ["SOUND", "yes"]
    assert marks[-1] in sound.stdout
    dosql("snapshot", "create", *of)
    url = json.loads(dosql("tenant", "info", tenant.name, "--json").stdout)["replicaUrl"]
    (file,) = (Path(url.removeprefix("file://")) / "ltx" / "9").glob("*.ltx")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    found = dosql("snapshot", "verify", *of)
    assert found.returncode == 1
    assert found.stdout.splitlines()[0].split() == ["SOUND", "no"]
    assert f"damaged: level 9, {file.name}" in found.stderr
    repaired = dosql("snapshot", "verify", *of, "--everything", "--repair")
    assert (repaired.returncode, "repaired: level 9" in repaired.stderr) == (0, True)
    report = json.loads(dosql("snapshot", "verify", *of, "--json").stdout)
    assert (report["sound"], report["damaged"]) == (True, [])


def test_the_bucket_is_part_of_what_is_known(dosql: Run, tenant: Tenant, marks: list[str]) -> None:
    dosql("snapshot", "create", "--tenant", tenant.name)
    shown = dosql("tenant", "info", tenant.name).stdout
    assert "in the bucket" in shown
    assert "file://" in shown


# --- branches ---------------------------------------------------------------------------------


def test_a_branch_is_made_compared_merged_and_removed(
    dosql: Run, tenant: Tenant, marks: list[str]
) -> None:
    dev = f"{tenant.name}-dev"
    made = json.loads(dosql("branch", "create", tenant.name, dev, "--json").stdout)
    assert (made["name"], made["parent"], made["bookmark"]) == (dev, tenant.name, marks[-1])
    assert json.loads(dosql("branch", "ls", tenant.name, "--json").stdout) == {"branches": [made]}
    assert dosql("branch", "ls", tenant.name).stdout.splitlines()[1].startswith(dev)
    assert dosql("branch", "diff", tenant.name, dev).stdout == "no differences\n"

    for sql in (
        "UPDATE fruit SET name = 'Apfel' WHERE id = 1",
        "DELETE FROM fruit WHERE id = 2",
        "INSERT INTO fruit VALUES (3, x'00ff')",
        "CREATE TABLE notes (text)",
    ):
        assert dosql("query", dev, sql).returncode == 0
    shown = dosql("branch", "diff", tenant.name, dev).stdout.splitlines()
    assert "+ table notes" in shown
    assert "fruit: 1 added, 1 changed, 1 removed" in shown
    assert "  ~ id 1: name 'apple' -> 'Apfel'" in shown
    assert "  - id 2, name 'pear'" in shown
    assert "  + id 3, name X'00ff'" in shown
    diff = json.loads(dosql("branch", "diff", tenant.name, dev, "--json").stdout)
    (added,) = [row for row in diff["tables"][0]["rows"] if row["change"] == "added"]
    assert added["branch"] == {"id": 3, "name": {"$blob": "AP8="}}

    dry = dosql("branch", "merge", tenant.name, dev, "--dry-run")
    assert (dry.returncode, "to be merged: 1 added" in dry.stderr) == (0, True)
    assert names(tenant) == ["apple", "pear"]
    merged = dosql("branch", "merge", tenant.name, dev)
    assert (merged.returncode, marks[-1] in merged.stderr) == (0, True)
    assert "merged: 1 added, 1 changed, 1 removed, 0 conflicts" in merged.stderr
    assert tenant.query_one("SELECT name FROM fruit WHERE id = 1") == {"name": "Apfel"}

    assert dosql("branch", "rm", tenant.name, dev).returncode == 2, "nobody can be asked"
    assert dosql("branch", "rm", tenant.name, dev, "--yes").returncode == 0
    assert json.loads(dosql("branch", "ls", tenant.name, "--json").stdout) == {"branches": []}


def test_conflicts_are_shown_and_settled_by_the_policy(
    dosql: Run, tenant: Tenant, marks: list[str]
) -> None:
    dev = f"{tenant.name}-dev"
    dosql("branch", "create", tenant.name, dev, "--at", marks[1])
    tenant.run("UPDATE fruit SET name = 'Apfel' WHERE id = 1")
    dosql("query", dev, "UPDATE fruit SET name = 'pomme' WHERE id = 1")
    refused = dosql("branch", "merge", tenant.name, dev)
    assert refused.returncode == 1
    assert refused.stdout == "conflict in fruit, changed: ~ id 1: name 'Apfel' -> 'pomme'\n"
    assert "not merged" in refused.stderr
    done = dosql("branch", "merge", tenant.name, dev, "--conflicts", "theirs", "--json")
    assert json.loads(done.stdout)["merged"] is True
    assert names(tenant) == ["pomme", "pear"]
    wrong = dosql("branch", "merge", tenant.name, dev, "--conflicts", "mine")
    assert wrong.returncode == 2


def test_only_a_branch_of_this_tenant_is_removed(
    dosql: Run, tenant: Tenant, marks: list[str]
) -> None:
    """A slip of the finger does not delete just any tenant."""
    done = dosql("branch", "rm", tenant.name, tenant.name, "--yes")
    assert (done.returncode, "(branch_not_found" in done.stderr) == (1, True)
    assert names(tenant) == ["apple", "pear"]


def test_what_is_protected_is_not_removed(dosql: Run, tenant: Tenant, marks: list[str]) -> None:
    dev = f"{tenant.name}-dev"
    assert dosql("branch", "create", tenant.name, dev, "--protected").returncode == 0
    refused = dosql("branch", "rm", tenant.name, dev, "--yes")
    assert (refused.returncode, "(tenant_protected" in refused.stderr) == (1, True)
    assert json.loads(dosql("branch", "protect", dev, "--off", "--json").stdout) == {
        "protected": False
    }
    assert dosql("branch", "rm", tenant.name, dev, "--yes").returncode == 0
    dosql("branch", "protect", tenant.name)
    assert dosql("tenant", "rm", tenant.name, "--yes").returncode == 1


def test_no_difference_can_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J"
    row = RowDifference("changed", {evil: evil}, {evil: 1}, {evil: evil})
    table = TableDifference(evil, 0, 0, 1, [row], True)
    schema = SchemaDifference("table", evil, "changed", evil, evil)
    print_diff(BranchDiff("a", "b", "", "", "parent", [schema], [table]))
    assert "\x1b" not in capsys.readouterr().out
