"""Branches of tenants, over a real host and a bucket in a directory."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dosql.errors import ConflictError, NotFoundError
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.host.tenant import Tenant
from dosql.replica.local_bucket import LocalBucket
from tests.support.hosts import call, crashed, execute, running_host, settings

SCHEMA = "CREATE TABLE items(id INTEGER PRIMARY KEY, value TEXT, note TEXT)"
VALUES = "SELECT id, value FROM items ORDER BY id"


def cold(tmp_path: Path, **changes: Any) -> ColdTierSettings:
    return ColdTierSettings(LocalBucket(tmp_path / "bucket"), directory=True, **changes)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as running:
        yield running


async def parent_of(host: Host) -> Tenant:
    """The tenant acme with rows 1 to 3."""
    tenant = await host.tenants.ensure("acme")
    await execute(tenant, SCHEMA)
    await execute(tenant, "INSERT INTO items(value) VALUES ('a'), ('b'), ('c')")
    return tenant


async def branch_of(host: Host, name: str = "dev", **options: Any) -> Tenant:
    await host.past.branches.create("acme", name, **options)
    return host.tenants.get(name)


def files_of(tmp_path: Path, tenant: Tenant) -> list[str]:
    found = (tmp_path / "bucket").rglob("*")
    return sorted(
        each.name for each in found if each.is_file() and tenant.key.id.hex() in str(each)
    )


# --- beginning --------------------------------------------------------------------------------


async def test_a_branch_begins_as_its_parent_is_and_goes_its_own_way(host: Host) -> None:
    parent = await parent_of(host)
    branch = await branch_of(host)
    await execute(parent, "DELETE FROM items WHERE id = 1")
    await execute(branch, "INSERT INTO items(value) VALUES ('d')")
    assert await execute(branch, VALUES) == [[1, "a"], [2, "b"], [3, "c"], [4, "d"]]
    assert await execute(parent, VALUES) == [[2, "b"], [3, "c"]]


async def test_a_branch_can_begin_in_the_past(host: Host) -> None:
    parent = await parent_of(host)
    mark = str((await call(parent, "SELECT 1")).bookmark)
    await execute(parent, "DROP TABLE items")
    info = await host.past.branches.create("acme", "dev", mark)
    assert (info.parent, info.bookmark) == ("acme", mark)
    assert await execute(host.tenants.get("dev"), "SELECT count(*) FROM items") == [[3]]


async def test_a_branch_is_a_link_until_it_is_written(host: Host, tmp_path: Path) -> None:
    await parent_of(host)
    branch = await branch_of(host)
    assert files_of(tmp_path, branch) == ["link.json"]
    assert await execute(branch, "SELECT count(*) FROM items") == [[3]]
    assert host.cold is not None
    await host.cold.drain()
    assert files_of(tmp_path, branch) == ["link.json"]
    assert (await host.tenants.described("dev")).replicated_txid == 0
    await execute(branch, "DELETE FROM items")
    await host.cold.drain()
    assert (await host.tenants.described("dev")).replicated_txid == 2
    assert [each for each in files_of(tmp_path, branch) if each.endswith(".ltx")]


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("written", [False, True])
async def test_a_branch_outlives_the_loss_of_the_machine(
    tmp_path: Path, woken: bool, written: bool
) -> None:
    host = await Host.start(settings(tmp_path / "data", cold=cold(tmp_path)))
    await parent_of(host)
    branch = await branch_of(host)
    if woken:
        await execute(branch, "SELECT count(*) FROM items")
    if written:
        await execute(branch, "INSERT INTO items(value) VALUES ('d')")
    assert host.cold is not None
    await host.cold.drain()
    await crashed(host)
    shutil.rmtree(tmp_path / "data")
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as again:
        branch = again.tenants.get("dev")
        expected = [[1, "a"], [2, "b"], [3, "c"]] + ([[4, "d"]] if written else [])
        assert await execute(branch, VALUES) == expected
        await execute(branch, "DELETE FROM items WHERE id > 1")
        assert await execute(branch, VALUES) == [[1, "a"]]
        assert await execute(again.tenants.get("acme"), VALUES) == expected[:3]
        assert [each.name for each in again.past.branches.list("acme")] == ["dev"]


async def test_a_branch_outlives_a_crash_of_the_server(tmp_path: Path) -> None:
    host = await Host.start(settings(tmp_path / "data", cold=cold(tmp_path)))
    await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "INSERT INTO items(value) VALUES ('d')")
    await crashed(host)
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as again:
        assert len(await execute(again.tenants.get("dev"), VALUES)) == 4


async def test_in_the_durability_mode_bucket_branches_work_as_well(tmp_path: Path) -> None:
    async with running_host(tmp_path / "data", cold=cold(tmp_path, durability="bucket")) as host:
        await parent_of(host)
        branch = await branch_of(host)
        assert await execute(branch, "SELECT count(*) FROM items") == [[3]]
        await execute(branch, "DELETE FROM items")
        assert await execute(branch, "SELECT count(*) FROM items") == [[0]]


async def test_a_branch_has_a_past_of_its_own(host: Host) -> None:
    await parent_of(host)
    branch = await branch_of(host)
    done = await branch.call_at(
        "2999-01-01T00:00:00Z", lambda db: b"%d" % db.query("SELECT count(*) FROM items").rows[0][0]
    )
    assert done.body == b"3"
    mark = (await call(branch, "SELECT 1")).bookmark
    await execute(branch, "DELETE FROM items")
    await host.past.restores.restore("dev", str(mark))
    assert await execute(branch, "SELECT count(*) FROM items") == [[3]]


async def test_branches_have_branches(host: Host) -> None:
    await parent_of(host)
    await branch_of(host, "dev")
    await host.past.branches.create("dev", "fix")
    assert len(await execute(host.tenants.get("fix"), VALUES)) == 3
    assert [each.name for each in host.past.branches.list("dev")] == ["fix"]
    assert [each.name for each in host.past.branches.list("acme")] == ["dev"]


async def test_a_branch_of_an_empty_tenant_is_empty(host: Host) -> None:
    await host.tenants.create("acme")
    branch = await branch_of(host)
    assert await execute(branch, "SELECT count(*) FROM sqlite_schema") == [[0]]


async def test_a_name_that_is_taken_is_refused(host: Host) -> None:
    await parent_of(host)
    await branch_of(host)
    with pytest.raises(ConflictError) as caught:
        await host.past.branches.create("acme", "dev")
    assert caught.value.code == "tenant_exists"
    with pytest.raises(NotFoundError):
        await host.past.branches.create("nobody", "other")


# --- the end ----------------------------------------------------------------------------------


async def test_a_deleted_branch_leaves_nothing_behind(host: Host, tmp_path: Path) -> None:
    await parent_of(host)
    branch = await branch_of(host)
    await host.tenants.delete("dev")
    assert host.past.branches.list("acme") == []
    assert host.cold is not None
    await host.cold.drain()
    assert files_of(tmp_path, branch) == []


async def test_a_parent_of_branches_can_be_neither_deleted_nor_replaced(
    host: Host, tmp_path: Path
) -> None:
    await parent_of(host)
    await branch_of(host)
    with pytest.raises(ConflictError) as caught:
        await host.tenants.delete("acme")
    assert caught.value.code == "tenant_has_branches"
    async with host.tenants.export("acme") as path:
        shutil.copyfile(path, tmp_path / "copy.db")
    with pytest.raises(ConflictError):
        await host.tenants.import_file("acme", tmp_path / "copy.db")
    await host.tenants.delete("dev")
    await host.tenants.delete("acme")


async def test_a_protected_tenant_is_neither_deleted_nor_merged_into(host: Host) -> None:
    await parent_of(host)
    branch = await branch_of(host, protected=True)
    await execute(branch, "DELETE FROM items")
    for _ in range(2):
        with pytest.raises(ConflictError) as caught:
            await host.tenants.delete("dev")
        assert caught.value.code == "tenant_protected"
    await host.past.branches.protect("dev", False)
    await host.past.branches.protect("acme", True)
    with pytest.raises(ConflictError) as caught:
        await host.past.branches.merge("acme", "dev")
    assert caught.value.code == "tenant_protected"
    await host.tenants.delete("dev")


async def test_a_new_tenant_of_the_name_of_a_branch_is_none(host: Host) -> None:
    await parent_of(host)
    await branch_of(host, protected=False)
    await host.tenants.delete("dev")
    await host.tenants.create("dev")
    assert host.past.branches.list("acme") == []
    with pytest.raises(NotFoundError) as caught:
        await host.past.branches.diff("acme", "dev")
    assert caught.value.code == "branch_not_found"


# --- comparing --------------------------------------------------------------------------------


async def test_a_comparison_tells_rows_by_key_and_schema_by_sql(host: Host) -> None:
    parent = await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "UPDATE items SET value = 'B' WHERE id = 2")
    await execute(branch, "DELETE FROM items WHERE id = 3")
    await execute(branch, "INSERT INTO items VALUES (9, 'z', x'00')")
    await execute(branch, "CREATE TABLE more(x)")
    await execute(branch, "INSERT INTO more VALUES (5)")
    await execute(parent, "UPDATE items SET value = 'A' WHERE id = 1")
    found = await host.past.branches.diff("acme", "dev")
    assert [(each.type, each.name, each.change) for each in found.schema] == [
        ("table", "more", "added")
    ]
    items, more = found.tables
    assert (items.table, items.added, items.removed, items.changed) == ("items", 1, 1, 2)
    assert {each.key["id"]: (each.change, each.parent, each.branch) for each in items.rows} == {
        1: ("changed", *({"id": 1, "value": each, "note": None} for each in "Aa")),
        2: ("changed", *({"id": 2, "value": each, "note": None} for each in "bB")),
        3: ("removed", {"id": 3, "value": "c", "note": None}, None),
        9: ("added", None, {"id": 9, "value": "z", "note": {"$blob": "AA=="}}),
    }
    assert (more.added, more.rows[0].key, more.rows[0].branch) == (1, {"rowid": 1}, {"x": 5})
    start = await host.past.branches.diff("acme", "dev", against="start")
    assert start.tables[0].changed == 1


async def test_what_is_the_same_is_not_told(host: Host) -> None:
    await parent_of(host)
    await branch_of(host)
    found = await host.past.branches.diff("acme", "dev")
    assert (found.schema, found.tables) == ([], [])


async def test_a_long_comparison_counts_all_and_tells_some(host: Host) -> None:
    await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "DELETE FROM items")
    (table,) = (await host.past.branches.diff("acme", "dev", rows_max=2)).tables
    assert (table.removed, len(table.rows), table.truncated) == (3, 2, True)


async def test_rows_of_tables_with_other_columns_are_not_compared(host: Host) -> None:
    await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "ALTER TABLE items ADD COLUMN extra")
    found = await host.past.branches.diff("acme", "dev")
    assert [each.change for each in found.schema] == ["changed"]
    assert [(each.table, each.compared) for each in found.tables] == [("items", False)]


# --- merging ----------------------------------------------------------------------------------


async def test_a_merge_applies_what_changed_in_the_branch(host: Host) -> None:
    parent = await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "UPDATE items SET value = 'B' WHERE id = 2")
    await execute(branch, "DELETE FROM items WHERE id = 3")
    await execute(branch, "INSERT INTO items(id, value) VALUES (9, 'z')")
    await execute(branch, "CREATE TABLE more(id INTEGER PRIMARY KEY, x)")
    await execute(branch, "INSERT INTO more VALUES (1, 5)")
    await execute(branch, "CREATE INDEX by_value ON items(value)")
    await execute(parent, "UPDATE items SET note = 'kept' WHERE id = 2")
    before = await execute(parent, VALUES)
    reply = await host.past.branches.merge("acme", "dev")
    assert (reply.merged, reply.added, reply.removed, reply.changed) == (True, 2, 1, 1)
    assert await execute(parent, "SELECT id, value, note FROM items ORDER BY id") == [
        [1, "a", None],
        [2, "B", "kept"],
        [9, "z", None],
    ]
    assert await execute(parent, "SELECT x FROM more") == [[5]]
    assert (await host.past.branches.diff("acme", "dev")).schema == []
    assert reply.undo_bookmark is not None
    await host.past.restores.restore("acme", reply.undo_bookmark)
    assert await execute(parent, VALUES) == before


async def test_a_second_merge_finds_everything_merged(host: Host) -> None:
    await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "INSERT INTO items(value) VALUES ('z')")
    await execute(branch, "UPDATE items SET value = 'B' WHERE id = 2")
    await execute(branch, "DELETE FROM items WHERE id = 1")
    assert (await host.past.branches.merge("acme", "dev")).merged
    reply = await host.past.branches.merge("acme", "dev")
    assert (reply.merged, reply.conflict_count, reply.undo_bookmark) == (True, 0, None)
    assert (reply.added, reply.removed, reply.changed) == (0, 0, 0)


async def conflicting(host: Host) -> tuple[Tenant, Tenant]:
    """Both changed rows 1 to 3 and added row 4."""
    parent = await parent_of(host)
    branch = await branch_of(host)
    for tenant, mark in ((parent, "ours"), (branch, "theirs")):
        await execute(tenant, f"UPDATE items SET value = '{mark}' WHERE id = 1")
        await execute(tenant, f"INSERT INTO items VALUES (4, '{mark}', NULL)")
    await execute(parent, "DELETE FROM items WHERE id = 2")
    await execute(branch, "UPDATE items SET value = 'theirs' WHERE id = 2")
    await execute(parent, "UPDATE items SET value = 'ours' WHERE id = 3")
    await execute(branch, "DELETE FROM items WHERE id = 3")
    return parent, branch


async def test_conflicts_abort_a_merge_and_are_told(host: Host) -> None:
    parent, _ = await conflicting(host)
    before = await execute(parent, VALUES)
    reply = await host.past.branches.merge("acme", "dev")
    assert (reply.merged, reply.conflict_count, reply.undo_bookmark) == (False, 4, None)
    told = {each.key["id"]: (each.change, each.reason) for each in reply.conflicts}
    assert told == {
        1: ("changed", "changed"),
        2: ("changed", "missing"),
        3: ("removed", "changed"),
        4: ("added", "exists"),
    }
    first = next(each for each in reply.conflicts if each.key["id"] == 1)
    assert first.parent == {"id": 1, "value": "ours", "note": None}
    assert first.branch == {"id": 1, "value": "theirs", "note": None}
    assert await execute(parent, VALUES) == before


async def test_ours_keeps_the_rows_of_the_parent(host: Host) -> None:
    parent, _ = await conflicting(host)
    before = await execute(parent, VALUES)
    reply = await host.past.branches.merge("acme", "dev", conflicts="ours")
    assert (reply.merged, reply.conflict_count) == (True, 4)
    assert await execute(parent, VALUES) == before


async def test_theirs_takes_the_rows_of_the_branch(host: Host) -> None:
    parent, branch = await conflicting(host)
    reply = await host.past.branches.merge("acme", "dev", conflicts="theirs")
    assert (reply.merged, reply.conflict_count) == (True, 4)
    assert await execute(parent, VALUES) == await execute(branch, VALUES)


@pytest.mark.parametrize("policy", ["abort", "theirs"])
async def test_what_a_constraint_forbids_is_not_merged(host: Host, policy: Any) -> None:
    tenant = await host.tenants.ensure("acme")
    await execute(tenant, "CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    branch = await branch_of(host)
    await execute(branch, "INSERT INTO u VALUES (1, 'same')")
    await execute(tenant, "INSERT INTO u VALUES (2, 'same')")
    reply = await host.past.branches.merge("acme", "dev", conflicts=policy)
    assert (reply.merged, [each.reason for each in reply.conflicts]) == (False, ["constraint"])
    assert await execute(tenant, "SELECT * FROM u") == [[2, "same"]]


@pytest.mark.parametrize("policy", ["abort", "ours", "theirs"])
async def test_a_merge_never_breaks_a_foreign_key(host: Host, policy: Any) -> None:
    tenant = await host.tenants.ensure("acme")
    await execute(tenant, "CREATE TABLE p(id INTEGER PRIMARY KEY)")
    await execute(tenant, "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id))")
    await execute(tenant, "INSERT INTO p VALUES (1)")
    branch = await branch_of(host)
    await execute(branch, "INSERT INTO c VALUES (1, 1)")
    await execute(tenant, "DELETE FROM p")
    reply = await host.past.branches.merge("acme", "dev", conflicts=policy)
    assert (reply.merged, [each.reason for each in reply.conflicts]) == (False, ["foreign_key"])
    assert await execute(tenant, "SELECT * FROM c") == []


async def test_triggers_do_not_fire_twice(host: Host) -> None:
    tenant = await parent_of(host)
    await execute(tenant, "CREATE TABLE log(id INTEGER PRIMARY KEY, text)")
    await execute(
        tenant,
        "CREATE TRIGGER t AFTER INSERT ON items BEGIN INSERT INTO log(text) VALUES (new.value);"
        " END",
    )
    branch = await branch_of(host)
    await execute(branch, "INSERT INTO items(value) VALUES ('z')")
    assert (await host.past.branches.merge("acme", "dev")).merged
    assert await execute(tenant, "SELECT text FROM log") == [["z"]]
    await execute(tenant, "INSERT INTO items(value) VALUES ('y')")
    assert await execute(tenant, "SELECT text FROM log") == [["z"], ["y"]]


async def test_a_dry_run_says_what_a_merge_would_do(host: Host) -> None:
    parent = await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "DELETE FROM items")
    reply = await host.past.branches.merge("acme", "dev", dry_run=True)
    assert (reply.merged, reply.removed, reply.undo_bookmark) == (False, 3, None)
    assert len(await execute(parent, VALUES)) == 3


async def test_a_table_with_other_columns_cannot_be_merged(host: Host) -> None:
    await parent_of(host)
    branch = await branch_of(host)
    await execute(branch, "ALTER TABLE items ADD COLUMN extra")
    with pytest.raises(ConflictError) as caught:
        await host.past.branches.merge("acme", "dev")
    assert caught.value.code == "merge_schema_differs"


async def test_tables_without_a_primary_key_are_merged_by_rowid(host: Host) -> None:
    tenant = await host.tenants.ensure("acme")
    await execute(tenant, "CREATE TABLE t(x)")
    await execute(tenant, "INSERT INTO t VALUES (1), (2)")
    branch = await branch_of(host)
    await execute(branch, "UPDATE t SET x = 20 WHERE x = 2")
    await execute(branch, "INSERT INTO t VALUES (3)")
    assert (await host.past.branches.merge("acme", "dev")).merged
    assert await execute(tenant, "SELECT rowid, x FROM t") == [[1, 1], [2, 20], [3, 3]]
