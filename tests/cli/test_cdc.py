"""``dosql cdc tail``."""

from __future__ import annotations

import json

from dosql.client import Tenant
from tests.cli.conftest import Run


def test_changes_are_printed_a_line_each(dosql: Run, tenant: Tenant) -> None:
    tenant.run("CREATE TABLE items (id INTEGER PRIMARY KEY, value)")
    tenant.change_slots.create("copy")
    tenant.run("INSERT INTO items VALUES (1, ?)", [b"\0"])
    tenant.run("DELETE FROM items")
    done = dosql("cdc", "tail", "--tenant", tenant.name, "--after", "0", "--no-follow")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["type"], first["new"]) == ("insert", {"id": 1, "value": {"$blob": "AA=="}})
    assert (second["type"], second["new"], second["seq"]) == ("delete", None, 2)
    options = ("--operations", "delete", "--tables", "items", "--slot", "copy", "--no-follow")
    done = dosql("cdc", "tail", "--tenant", tenant.name, *options)
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [2]


def test_a_slot_that_does_not_exist_is_said(dosql: Run, tenant: Tenant) -> None:
    done = dosql("cdc", "tail", "--tenant", tenant.name, "--slot", "nothing")
    assert done.returncode == 1
    assert "slot_not_found" in done.stderr
