"""What retention must leave alone for branches, and what a merged file makes of a point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dosql.bookmarks import Bookmark
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.plan import RAW_LEVEL
from tests.support.hosts import call, execute, running_host, tenant_with_items, work


def cold(tmp_path: Path, **changes: Any) -> ColdTierSettings:
    return ColdTierSettings(LocalBucket(tmp_path / "bucket"), directory=True, **changes)


def needed(host: Host, name: str = "acme") -> Any:
    assert host.cold is not None
    return host.cold.compaction.protected(host.tenants.entry(name).key)


async def test_where_branches_began_is_kept_as_long_as_they_are(tmp_path: Path) -> None:
    """After a restart, too."""
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as host:
        tenant = await tenant_with_items(host)
        assert not needed(host)
        mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
        await call(tenant, "INSERT INTO items(value) VALUES ('b')")
        await host.past.branches.create("acme", "dev", str(mark))
        assert needed(host) == {mark.txid}
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as host:
        assert needed(host) == {mark.txid}
        await host.tenants.delete("dev")
        assert not needed(host)


async def test_a_point_inside_a_merged_file_is_rounded_down(tmp_path: Path) -> None:
    """And the reply says which state it was."""
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as host:
        tenant = await tenant_with_items(host)
        marks: list[Bookmark] = []
        for value in "abcdef":
            sql = "INSERT INTO items(value) VALUES (?)"
            marks.append((await call(tenant, sql, value)).bookmark)
        assert host.cold is not None
        await host.cold.drain()
        await host.past.snapshots.create("acme")
        replica = host.cold.shipper.replica(tenant.key)
        inside = [
            each
            for each in replica.files()
            if each.level == RAW_LEVEL and marks[2].txid <= each.max_txid <= marks[4].txid
        ]
        replica.bucket.delete([replica.key(each) for each in inside])
        done = await tenant.call_at(str(marks[3]), work("SELECT count(*) FROM items"))
        assert (done.body, done.bookmark) == (b"[[2]]", marks[1])
        reply = await host.past.restores.restore("acme", str(marks[4]), "copy")
        assert reply.bookmark == str(marks[1])
        copy = host.tenants.get("copy")
        assert await execute(copy, "SELECT value FROM items") == [["a"], ["b"]]
        newest = await tenant.call_at(str(marks[5]), work("SELECT count(*) FROM items"))
        assert newest.body == b"[[6]]"
